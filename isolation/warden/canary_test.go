package main

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/isolation/warden/canary"
	"github.com/gpuhost/gpuhost/isolation/warden/fifo"
	"github.com/gpuhost/gpuhost/isolation/warden/launch"
)

const canaryUID = spec.UID("aaaaaaaa")

// newCgroup makes a cgroup for one test below the private mount, removed with all
// that is below it.
func newCgroup(t *testing.T) string {
	t.Helper()
	dir := "/sys/fs/cgroup/gpuhost-wardentest"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, below := range []string{"/*/*/cgroup.procs", "/*/cgroup.procs", "/cgroup.procs"} {
			found, _ := filepath.Glob(dir + below)
			for _, file := range found {
				if err := os.Remove(filepath.Dir(file)); err != nil {
					t.Error(err)
				}
			}
		}
	})
	return dir
}

// withInstance gives the host a launcher over an instance's parent cgroup.
func (h host) withInstance(t *testing.T) host {
	t.Helper()
	root := newCgroup(t)
	h.paths.CgroupMount, h.paths.CgroupRoot = filepath.Dir(root), "/"+filepath.Base(root)
	if err := os.Mkdir(h.paths.CgroupDir(canaryUID), 0o755); err != nil {
		t.Fatal(err)
	}
	return h.with(h.paths)
}

func (h host) with(paths isolation.Paths) host {
	return host{launch.New(launch.Config{Paths: paths, UID: nobody, GID: nobody, Stderr: os.Stderr}), paths}
}

func TestCanaryTellsWhatTheKernelAnswers(t *testing.T) {
	h := newHost(t).withInstance(t)
	folder := t.TempDir()
	private := filepath.Join(folder, "mem")
	if err := syscall.Mknod(private, syscall.S_IFCHR|0o600, 1<<8|1); err != nil {
		t.Fatal(err)
	}
	// The path of a file in a test's own folder must be open to the other user.
	for dir := folder; dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	want := []canary.Result{
		{Path: "/dev/null", Major: 1, Minor: 3},
		{Path: "/dev/null", Major: 1, Minor: 5, Errno: syscall.ENODEV}, // another device than said
		{Path: private, Major: 1, Minor: 1, Errno: syscall.EACCES},     // there, and not this user's
		{Path: `/dev/"odd"\name`, Major: 195, Minor: 255, Errno: syscall.ENOENT},
	}
	o := canary.Options{UID: nobody}
	for _, r := range want {
		o.Nodes = append(o.Nodes, canary.Node{Path: r.Path, Major: r.Major, Minor: r.Minor})
	}
	for range 2 {
		got, err := h.Canary(t.Context(), canaryUID, o)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

// A canary that cannot be started has proved nothing, and makes no cgroup of an
// instance that has none: the outer program would be missing there.
func TestCanaryWithoutItsInstanceFails(t *testing.T) {
	h := newHost(t).withInstance(t)
	if results, err := h.Canary(t.Context(), "bbbbbbbb", canary.Options{}); !fault.Is(err, fault.Temporary) {
		t.Errorf("got %v, %v", results, err)
	}
	if _, err := os.Stat(h.paths.CgroupDir("bbbbbbbb")); err == nil {
		t.Error("it made the instance's cgroup")
	}
}

// What a stop leaves of an instance's cgroup was killed once; the next run's canary
// lives all the same.
func TestCanaryAfterAStopLives(t *testing.T) {
	h := newHost(t).withInstance(t)
	for range 2 {
		if _, err := h.Canary(t.Context(), canaryUID, canary.Options{}); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(h.paths.CgroupDir(canaryUID), "cgroup.kill"), []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
	}
}

// A canary that hangs is left behind after its time, and there is no second one
// beside it.
func TestCanaryThatHangsIsAlone(t *testing.T) {
	h := newHost(t).withInstance(t)
	started := filepath.Join(t.TempDir(), "started")
	if err := fifo.Make(started); err != nil {
		t.Fatal(err)
	}
	h.paths.Warden = filepath.Join(t.TempDir(), "warden")
	if err := os.WriteFile(h.paths.Warden, []byte("#!/bin/sh\necho $$ > "+started+"\nexec sleep 1000\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	h = h.with(h.paths)
	ctx, cancel := context.WithCancel(t.Context())
	answer := make(chan error, 1)
	go func() {
		_, err := h.Canary(ctx, canaryUID, canary.Options{})
		answer <- err
	}()
	text, err := os.ReadFile(started) // waits for the canary
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	if _, err := h.Canary(t.Context(), canaryUID, canary.Options{}); err == nil || !strings.Contains(err.Error(), "earlier canary") {
		t.Errorf("a second canary: %v", err)
	}
	cancel()
	if err := <-answer; !fault.Is(err, fault.Temporary) {
		t.Errorf("the first canary: %v", err)
	}
	awaitGone(t, pidfd)
}
