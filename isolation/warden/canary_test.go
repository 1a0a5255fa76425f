package main

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gpuhost/gpuhost/isolation/warden/canary"
)

// newCgroup makes a cgroup for one test below the private mount.
func newCgroup(t *testing.T) string {
	t.Helper()
	dir := "/sys/fs/cgroup/gpuhost-wardentest"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestCanaryTellsWhatTheKernelAnswers(t *testing.T) {
	h := newHost(t)
	scratch := t.TempDir()
	private := filepath.Join(scratch, "mem")
	if err := syscall.Mknod(private, syscall.S_IFCHR|0o600, 1<<8|1); err != nil {
		t.Fatal(err)
	}
	// The path of a file in a test's own folder must be open to the other user.
	for dir := scratch; dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	got, err := h.Canary(t.Context(), newCgroup(t), canary.Options{
		UID: nobody, Scratch: scratch,
		Nodes: []canary.Node{
			{Path: "/dev/null", Major: 1, Minor: 3},
			{Path: "/dev/null", Major: 1, Minor: 5},           // another device than said
			{Path: private, Major: 1, Minor: 1},               // there, and not this user's
			{Path: `/dev/"odd"\name`, Major: 195, Minor: 255}, // not there, so made, or not
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []canary.Result{
		{Op: canary.OpOpen, Path: "/dev/null", Major: 1, Minor: 3},
		{Op: canary.OpOpen, Path: "/dev/null", Major: 1, Minor: 5, Errno: syscall.ENODEV},
		{Op: canary.OpOpen, Path: private, Major: 1, Minor: 1, Errno: syscall.EACCES},
		{Op: canary.OpMknod, Path: `/dev/"odd"\name`, Major: 195, Minor: 255, Errno: syscall.EACCES},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A canary that cannot be started has proved nothing.
func TestCanaryWithoutItsCgroupFails(t *testing.T) {
	h := newHost(t)
	if results, err := h.Canary(context.Background(), "/sys/fs/cgroup/no-such", canary.Options{}); err == nil {
		t.Errorf("got %v", results)
	}
}
