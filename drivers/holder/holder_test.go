package holder_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/drivers/holder"
)

// /dev/full is 1:7 on every Linux, and nobody has it open.
const (
	fullPath         = "/dev/full"
	fullMajor        = 1
	fullMinor        = 7
	neverMinor       = 250
	statusOfAUser    = "Name:\tx\nUid:\t1879048192\t0\t0\t0\n"
	statusOfNoReason = ""
)

func TestOpenDeviceIsFoundWhateverItsName(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: other processes' files are looked at")
	}
	device, err := os.OpenFile(fullPath, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	child := exec.Command("sleep", "60")
	child.ExtraFiles = []*os.File{device}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { child.Process.Kill(); child.Wait() }()

	have := look(t, sandboxed(), fullMinor)
	want := map[int]bool{child.Process.Pid: true, os.Getpid(): true}
	for _, h := range have {
		if h.PID == child.Process.Pid && h.Command != "sleep" && h.Command != "holder.test" {
			t.Errorf("the child's name is %q", h.Command)
		}
		delete(want, h.PID)
	}
	if len(want) > 0 {
		t.Errorf("have %+v, not %v", have, want)
	}
	if other := look(t, sandboxed(), neverMinor); len(other) > 0 {
		t.Errorf("another minor: have %+v", other)
	}
}

// sandboxed is this machine, whose init may be out of reach.
func sandboxed() holder.Proc { return holder.Proc{Root: "/proc", SkipForbidden: true} }

func look(t *testing.T, p holder.Proc, minor uint32) []drivers.Holder {
	t.Helper()
	found, err := p.Holders(t.Context(), fullMajor, minor)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// pretend makes a proc file system of one process.
func pretend(t *testing.T, folder, link, target, status string) holder.Proc {
	t.Helper()
	root := t.TempDir()
	for _, sub := range []string{"42/fd", "42/map_files", "self/fd"} {
		if err := os.MkdirAll(filepath.Join(root, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(target, filepath.Join(root, "42", folder, link)); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"comm": "evil\x1b[2J\n", "status": status} {
		if err := os.WriteFile(filepath.Join(root, "42", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return holder.Proc{Root: root}
}

func TestProcesses(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(plain, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	holding := []drivers.Holder{{PID: 42, Command: "evil?[2J", UID: 1879048192}}
	for _, row := range []struct {
		name, folder, target, status string
		want                         []drivers.Holder
	}{
		{"an open file", "fd", fullPath, statusOfAUser, holding},
		{"a mapping", "map_files", fullPath, statusOfAUser, holding},
		{"a file that is no device", "fd", plain, statusOfAUser, nil},
		{"another device", "fd", "/dev/null", statusOfAUser, nil},
		{"a file that is gone", "fd", "/nonexistent", statusOfAUser, nil},
		{"no status", "fd", fullPath, statusOfNoReason, []drivers.Holder{{PID: 42, Command: "evil?[2J"}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			have := look(t, pretend(t, row.folder, "0", row.target, row.status), fullMinor)
			if diff := cmp.Diff(row.want, have); diff != "" {
				t.Errorf("(-want +have):\n%s", diff)
			}
		})
	}
}

// TestWhatCannotBeLookedAtIsAnError: it would prove nothing.
func TestWhatCannotBeLookedAtIsAnError(t *testing.T) {
	loop := pretend(t, "fd", "0", "0", statusOfAUser) // a link to itself: ELOOP
	if _, err := loop.Holders(t.Context(), fullMajor, fullMinor); err == nil || !strings.Contains(err.Error(), "process 42") {
		t.Errorf("have %v", err)
	}
	if _, err := (holder.Proc{Root: "/nonexistent"}).Holders(t.Context(), fullMajor, fullMinor); err == nil {
		t.Error("no proc file system, and no error")
	}
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := loop.Holders(stopped, fullMajor, fullMinor); !errors.Is(err, context.Canceled) {
		t.Errorf("have %v", err)
	}
}

func BenchmarkHoldersOfThisHost(b *testing.B) {
	p := sandboxed()
	for b.Loop() {
		if _, err := p.Holders(b.Context(), 195, 0); err != nil {
			b.Fatal(err)
		}
	}
}
