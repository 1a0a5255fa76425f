package kmsg

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/drivers/gpu"
)

func TestParse(t *testing.T) {
	const head = "4,1234,5678901,-;"
	for _, row := range []struct {
		name, record string
		want         *XID
	}{
		{"today's form", head + "NVRM: Xid (PCI:0000:05:00): 79, pid=1234, name=python, GPU has fallen off the bus.\n SUBSYSTEM=pci",
			&XID{PCI: "0000:05:00.0", Code: 79, Text: "pid=1234, name=python, GPU has fallen off the bus."}},
		{"without PCI", head + "NVRM: Xid (0000:1b:00): 13, Graphics Exception", &XID{PCI: "0000:1b:00.0", Code: 13, Text: "Graphics Exception"}},
		{"NVLink 5", head + "NVRM: Xid (PCI:0009:01:00): 149, NETIR_LINK_EVT Fatal XC0 i0 Link 08 (0x1 0x2)",
			&XID{PCI: "0009:01:00.0", Code: 149, Text: "NETIR_LINK_EVT Fatal XC0 i0 Link 08 (0x1 0x2)"}},
		{"nothing more", head + "NVRM: Xid (PCI:0000:05:00): 43", &XID{PCI: "0000:05:00.0", Code: 43, Text: ""}},
		{"lost", head + "NVRM: GPU 0000:18:00.0: GPU has fallen off the bus.", &XID{PCI: "0000:18:00.0", Code: 79, Text: "GPU has fallen off the bus"}},
		{"lost, another form", head + "NVRM: The NVIDIA GPU at PCI:0000:18:00.0 has fallen off the bus", &XID{PCI: "0000:18:00.0", Code: 79, Text: "GPU has fallen off the bus"}},
		{"a tenant's process name", head + "NVRM: Xid (PCI:0000:05:00): 31, name=\x1b[2J", &XID{PCI: "0000:05:00.0", Code: 31, Text: "name=?[2J"}},
		{"forged by a user", "12,1,1,-;NVRM: Xid (PCI:0000:05:00): 79, pid=1", nil},
		{"forged inside a line", head + "tenant says NVRM: Xid (PCI:0000:05:00): 79", nil},
		{"no priority", "x,1,1,-;NVRM: Xid (PCI:0000:05:00): 79", nil},
		{"no head", "NVRM: Xid (PCI:0000:05:00): 79", nil},
		{"no address", head + "NVRM: Xid (PCI:::::::::): 79", nil},
		{"a switch's", head + "nvidia-nvswitch1: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 48", nil},
		{"something else", head + "usb 1-1: new device", nil},
		{"nothing", "", nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			have, is := Parse(row.record)
			if row.want == nil {
				if is {
					t.Errorf("have %+v", have)
				}
				return
			}
			row.want.Sequence, row.want.Uptime = 1234, 5678901*time.Microsecond
			if diff := cmp.Diff(*row.want, have); !is || diff != "" {
				t.Errorf("%v (-want +have):\n%s", is, diff)
			}
		})
	}
}

// records is a log that gives one record a read, as the kernel does.
type records struct{ left []any }

func (r *records) Read(into []byte) (int, error) {
	if len(r.left) == 0 {
		return 0, io.EOF
	}
	next := r.left[0]
	r.left = r.left[1:]
	if err, is := next.(error); is {
		return 0, err
	}
	return copy(into, next.(string)), nil
}

func TestFollowGoesOnAfterLostRecords(t *testing.T) {
	log := &records{left: []any{
		"4,1,1,-;NVRM: Xid (PCI:0000:05:00): 13, a", unix.EPIPE, "4,9,1,-;NVRM: Xid (PCI:0000:05:00): 79, b",
	}}
	var have []int
	if err := follow(log, 0, func(x XID) { have = append(have, x.Code) }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{13, 79}, have); diff != "" {
		t.Error(diff)
	}
	broken := &records{left: []any{errors.New("broken")}}
	if err := follow(broken, 0, func(XID) {}); err == nil || !strings.Contains(err.Error(), "read kernel log: broken") {
		t.Errorf("have %v", err)
	}
}

// TestFollowTellsWhatWasLoggedBefore: the agent was down when a GPU failed; what it
// told before that is not told again.
func TestFollowTellsWhatWasLoggedBefore(t *testing.T) {
	log := &records{left: []any{
		"4,7,1,-;NVRM: Xid (PCI:0000:05:00): 13, told", "4,8,1,-;NVRM: Xid (PCI:0000:05:00): 31, told", "4,9,1,-;NVRM: Xid (PCI:0000:05:00): 79, missed",
	}}
	var have []XID
	if err := follow(log, 9, func(x XID) { have = append(have, x) }); err != nil {
		t.Fatal(err)
	}
	if len(have) != 1 || have[0].Code != 79 || have[0].Sequence != 9 {
		t.Errorf("have %+v", have)
	}
}

// TestFollowEndsWithItsContext reads this machine's own log. What is written to
// it from here has facility user, and is not believed.
func TestFollowEndsWithItsContext(t *testing.T) {
	log, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("the kernel log is not to be had: %v", err)
	}
	defer log.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- Follow(ctx, 0, func(x XID) {
			if strings.Contains(x.Text, "forged") {
				t.Errorf("a forged XID is believed: %+v", x)
			}
		})
	}()
	if _, err := log.WriteString("<4>NVRM: Xid (PCI:0000:05:00): 79, forged by a test\n"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("4,1,1,-;NVRM: Xid (PCI:0000:05:00): 79, pid=1")
	f.Add("4,1,1,-;NVRM: GPU 0000:18:00.0: GPU has fallen off the bus.")
	f.Fuzz(func(t *testing.T, record string) {
		x, is := Parse(record)
		if !is {
			return
		}
		if p, err := gpu.ParsePCIAddress(string(x.PCI)); err != nil || p != x.PCI || x.Code < 0 || len(x.Text) > maxText {
			t.Errorf("%q reads as %+v", record, x)
		}
	})
}
