package pin

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

func TestMain(m *testing.M) { hosttest.Main(m) }

// sleeper is a process in a network namespace of its own.
func sleeper(t testing.TB) (pid int, end func()) {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	t.Cleanup(end)
	return cmd.Process.Pid, end
}

func open(t testing.TB) (*Pins, isolation.Paths) {
	t.Helper()
	hosttest.Need(t)
	paths := isolation.Paths{Netns: filepath.Join(t.TempDir(), "netns")}
	p, err := Open(paths)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		uids, _ := p.List(t.Context())
		for _, uid := range uids {
			_ = p.Unpin(t.Context(), uid)
		}
	})
	return p, paths
}

func expect(t testing.TB, p *Pins, pid int, want isolation.PinState) {
	t.Helper()
	got, err := p.State(t.Context(), "aaaaaaaa", pid)
	if err != nil || got != want {
		t.Fatalf("State(%d) = %q, %v, want %q", pid, got, err, want)
	}
}

func TestPinOutlivesItsTask(t *testing.T) {
	p, _ := open(t)
	pid, end := sleeper(t)
	expect(t, p, pid, isolation.PinNone)
	for range 2 {
		if err := p.Pin(t.Context(), "aaaaaaaa", pid); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, p, pid, isolation.PinCurrent)
	expect(t, p, 0, isolation.PinStale)
	end()
	expect(t, p, pid, isolation.PinStale)
	for range 2 {
		if err := p.Unpin(t.Context(), "aaaaaaaa"); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, p, 0, isolation.PinNone)
}

func TestPinMovesToTheNextTask(t *testing.T) {
	p, _ := open(t)
	first, _ := sleeper(t)
	second, _ := sleeper(t)
	for _, pid := range []int{first, second} {
		if err := p.Pin(t.Context(), "aaaaaaaa", pid); err != nil {
			t.Fatal(err)
		}
		expect(t, p, pid, isolation.PinCurrent)
	}
	expect(t, p, first, isolation.PinStale)
}

func TestPinOverWhatACrashLeft(t *testing.T) {
	p, paths := open(t)
	if err := os.WriteFile(paths.Pin("aaaaaaaa"), nil, 0o400); err != nil {
		t.Fatal(err)
	}
	pid, _ := sleeper(t)
	expect(t, p, pid, isolation.PinNone)
	if err := p.Pin(t.Context(), "aaaaaaaa", pid); err != nil {
		t.Fatal(err)
	}
	expect(t, p, pid, isolation.PinCurrent)
}

func TestPinOfAProcessThatIsGone(t *testing.T) {
	p, _ := open(t)
	pid, end := sleeper(t)
	end()
	if err := p.Pin(t.Context(), "aaaaaaaa", pid); err == nil {
		t.Error("Pin of a dead process passed")
	}
	if err := p.Unpin(t.Context(), "aaaaaaaa"); err != nil {
		t.Error(err)
	}
}

// The folder is shared with the pins of routers, which are no instance's.
func TestListPassesOverPinsOfRouters(t *testing.T) {
	p, paths := open(t)
	for _, name := range []string{"vpc-aaaaaaaa", "aaaaaaaa"} {
		if err := os.WriteFile(filepath.Join(paths.Netns, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	uids, err := p.List(t.Context())
	if err != nil || len(uids) != 1 || uids[0] != "aaaaaaaa" {
		t.Errorf("List() = %v, %v, want only aaaaaaaa", uids, err)
	}
}
