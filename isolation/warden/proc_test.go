package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// killAndWait kills a process that is some warden's child and waits until it is
// gone, reaped or not.
func killAndWait(t testing.TB, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	awaitGone(t, fd)
}

func awaitGone(t testing.TB, pidfd int) {
	t.Helper()
	state := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(state, 30_000)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			t.Fatalf("process is still there: %v", err)
		}
		return
	}
}

func assertConfined(t testing.TB, pid int) {
	t.Helper()
	for line, wanted := range map[string]string{
		"Uid":        "65534\t65534\t65534\t65534",
		"Gid":        "65534\t65534\t65534\t65534",
		"Groups":     "",
		"CapPrm":     "0000000000000000",
		"CapEff":     "0000000000000000",
		"NoNewPrivs": "1",
		"Seccomp":    "2",
	} {
		for thread, got := range status(t, pid, line) {
			if got != wanted {
				t.Errorf("thread %s: %s is %q, want %q", thread, line, got, wanted)
			}
		}
	}
}

// status reads one line of /proc/pid/status for all threads.
func status(t testing.TB, pid int, name string) map[string]string {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/task", pid)
	threads, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, thread := range threads {
		text, err := os.ReadFile(dir + "/" + thread.Name() + "/status")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if value, ok := strings.CutPrefix(line, name+":"); ok {
				found[thread.Name()] = strings.TrimSpace(value)
			}
		}
	}
	return found
}

func descriptors(t testing.TB, pid int) map[int]string {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	open := map[int]string{}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		if open[fd], err = os.Readlink(dir + "/" + e.Name()); err != nil {
			t.Fatal(err)
		}
	}
	return open
}
