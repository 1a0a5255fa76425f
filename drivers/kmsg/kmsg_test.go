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
			&XID{"0000:05:00.0", 79, "pid=1234, name=python, GPU has fallen off the bus."}},
		{"without PCI", head + "NVRM: Xid (0000:1b:00): 13, Graphics Exception", &XID{"0000:1b:00.0", 13, "Graphics Exception"}},
		{"NVLink 5", head + "NVRM: Xid (PCI:0009:01:00): 149, NETIR_LINK_EVT Fatal XC0 i0 Link 08 (0x1 0x2)",
			&XID{"0009:01:00.0", 149, "NETIR_LINK_EVT Fatal XC0 i0 Link 08 (0x1 0x2)"}},
		{"nothing more", head + "NVRM: Xid (PCI:0000:05:00): 43", &XID{"0000:05:00.0", 43, ""}},
		{"lost", head + "NVRM: GPU 0000:18:00.0: GPU has fallen off the bus.", &XID{"0000:18:00.0", 79, "GPU has fallen off the bus"}},
		{"lost, another form", head + "NVRM: The NVIDIA GPU at PCI:0000:18:00.0 has fallen off the bus", &XID{"0000:18:00.0", 79, "GPU has fallen off the bus"}},
		{"a tenant's process name", head + "NVRM: Xid (PCI:0000:05:00): 31, name=\x1b[2J", &XID{"0000:05:00.0", 31, "name=?[2J"}},
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
	if err := follow(log, func(x XID) { have = append(have, x.Code) }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{13, 79}, have); diff != "" {
		t.Error(diff)
	}
	broken := &records{left: []any{errors.New("broken")}}
	if err := follow(broken, func(XID) {}); err == nil || !strings.Contains(err.Error(), "read kernel log: broken") {
		t.Errorf("have %v", err)
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
		ended <- Follow(ctx, func(x XID) { t.Errorf("a forged XID is believed: %+v", x) })
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
