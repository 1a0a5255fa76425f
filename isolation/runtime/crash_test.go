package runtime

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/isolation"
)

// TestContainerdKilledWhileCreating kills containerd at random moments of
// CreateTask. Whatever it leaves, doing it again must get there.
func TestContainerdKilledWhileCreating(t *testing.T) {
	h := newHost(t)
	lease := testLease(h.importBusybox("acme"), "sleep", "1000")
	for round := range 6 {
		release := h.prepareHeld(lease)
		moment := time.Duration(rand.Int64N(int64(800 * time.Millisecond)))
		before := h.pid()
		timer := time.AfterFunc(moment, func() {
			if p, err := os.FindProcess(before); err == nil {
				p.Kill()
			}
		})
		pid, err := h.client.CreateTask(t.Context(), "acme", testUID)
		timer.Stop()
		t.Logf("round %d: killed after %v: pid %d, %v", round, moment, pid, err)
		if err != nil {
			if err := h.client.Ready(t.Context()); err != nil {
				t.Fatal(err)
			}
			if pid, err = h.client.CreateTask(t.Context(), "acme", testUID); err != nil {
				t.Fatalf("create again: %v", err)
			}
		}
		if err := h.client.StartTask(t.Context(), "acme", testUID); err != nil {
			t.Fatalf("start: %v", err)
		}
		if got := h.state().Task; got.Status != isolation.TaskRunning || got.Pid != pid {
			t.Errorf("task %+v, want running with pid %d", got, pid)
		}
		h.remove()
		release()
		if err := os.MkdirAll(h.config.Paths.CgroupDir(testUID), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// prepareHeld prepares and holds both FIFOs the way the log writer does: open for
// reading and writing, so that a shim that dies in the middle ends nothing.
func (h *host) prepareHeld(lease isolation.Lease) (release func()) {
	h.t.Helper()
	err := h.makeContainer(lease)
	if err != nil {
		h.t.Fatal(err)
	}
	var held []*os.File
	for _, name := range []string{isolation.Stdout, isolation.Stderr} {
		f, err := os.OpenFile(filepath.Join(h.config.Paths.IODir(testUID), name), os.O_RDWR, 0)
		if err != nil {
			h.t.Fatal(err)
		}
		held = append(held, f)
	}
	return func() {
		for _, f := range held {
			f.Close()
		}
	}
}

// While containerd is away everything says so at once, and tenants run on.
func TestContainerdAway(t *testing.T) {
	h := newHost(t)
	h.start(testLease(h.importBusybox("acme"), "sleep", "1000"))
	pid := h.state().Task.Pid
	h.die()
	if err := NewSupervisor(h.config).Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	client, err := Open(h.config)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for name, call := range map[string]func() error{
		"state":     func() error { _, err := client.State(t.Context(), "acme", testUID); return err },
		"images":    func() error { _, err := client.Images(t.Context(), ""); return err },
		"leftovers": func() error { _, err := client.Leftovers(t.Context()); return err },
		"create":    func() error { _, err := client.CreateTask(t.Context(), "acme", testUID); return err },
		"exit":      func() error { _, err := client.AwaitExit(t.Context(), "acme", testUID); return err },
	} {
		if err := call(); !fault.Is(err, fault.Temporary) {
			t.Errorf("%s: %v of kind %q", name, err, fault.KindOf(err))
		}
	}
	if _, err := os.Stat("/proc/" + strconv.Itoa(pid)); err != nil {
		t.Error("the tenant ended with containerd:", err)
	}
	h.boot()
	if got := h.state().Task; got.Pid != pid {
		t.Errorf("task %+v, want pid %d", got, pid)
	}
	h.remove()
}

// The files of an instance come after what shows them and go before it: containerd
// ends in the middle, and nothing is left that nobody would find.
func TestFilesGoWithWhatShowsThem(t *testing.T) {
	h := newHost(t)
	lease := testLease(h.importBusybox("acme"), "sleep", "1000")
	if err := h.makeContainer(lease); err != nil {
		t.Fatal(err)
	}
	h.die()
	if err := NewSupervisor(h.config).Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	var err error
	if h.client, err = Open(h.config); err != nil {
		t.Fatal(err)
	}
	if err := h.client.Delete(t.Context(), "acme", testUID, isolation.DeleteDisk); !fault.Is(err, fault.Temporary) {
		t.Errorf("deleted without containerd: %v", err)
	}
	if _, err := os.Stat(h.config.Paths.EtcDir(testUID)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its files: %v", err)
	}
	if err := h.client.Prepare(t.Context(), isolation.Creation{Lease: lease}); !fault.Is(err, fault.Temporary) {
		t.Errorf("made without containerd: %v", err)
	}
	if _, err := os.Stat(h.config.Paths.EtcDir(testUID)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("files before there is a disk: %v", err)
	}
	h.client.Close()
	h.boot()
	h.remove()
}

// A shim that is killed takes its task along: the exit is reported, as unknown
// or as a kill, and nothing runs on unseen.
func TestKilledShim(t *testing.T) {
	h := newHost(t)
	h.start(testLease(h.importBusybox("acme"), "sleep", "1000"))
	exits := h.client.Exits(t.Context())
	pid := h.state().Task.Pid
	shim := parent(t, pid)
	if err := shim.Kill(); err != nil {
		t.Fatal(err)
	}
	exit := <-exits
	if exit.UID != testUID || !exit.Status.Unknown && exit.Status.Code != 137 {
		t.Errorf("exit %+v", exit)
	}
	if got := h.state().Task; got.Status != isolation.TaskExited {
		t.Errorf("task %+v", got)
	}
	h.remove()
}

func parent(t *testing.T, pid int) *os.Process {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "PPid:\t")
	number, _, _ := strings.Cut(rest, "\n")
	id, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	p, err := os.FindProcess(id)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
