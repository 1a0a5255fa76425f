package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation/warden/fifo"
	"github.com/gpuhost/gpuhost/isolation/warden/logfile"
	"github.com/gpuhost/gpuhost/isolation/warden/tasklog"
)

func TestLogKeepsBothStreams(t *testing.T) {
	h := newHost(t)
	h.makePipes(t, "aaaaaaaa")
	h.startLog(t, "aaaaaaaa")
	out, errs := h.writer(t, "aaaaaaaa", fifo.Stdout), h.writer(t, "aaaaaaaa", fifo.Stderr)

	log := h.follow(t, "aaaaaaaa")
	fmt.Fprintln(out, "hello")
	want(t, log, "stdout F hello")
	fmt.Fprintln(errs, "trouble")
	want(t, log, "stderr F trouble")
	fmt.Fprint(out, "two ", "parts\n")
	want(t, log, "stdout F two parts")
	fmt.Fprintln(out, strings.Repeat("x", logfile.MaxText+1))
	want(t, log, "stdout P "+strings.Repeat("x", logfile.MaxText))
	want(t, log, "stdout F x")
}

func TestLogFilesAreOwnersOnly(t *testing.T) {
	h := newHost(t)
	h.makePipes(t, "aaaaaaaa")
	h.startLog(t, "aaaaaaaa")
	log := h.follow(t, "aaaaaaaa")
	fmt.Fprintln(h.writer(t, "aaaaaaaa", fifo.Stdout), "x")
	want(t, log, "stdout F x")
	info, err := os.Stat(filepath.Join(h.paths.LogDir("aaaaaaaa"), "00000001.log"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("log has mode %v, want 0600", info.Mode().Perm())
	}
}

// A second start finds the first at work, and what was written in between is
// read once.
func TestStartLogTwice(t *testing.T) {
	h := newHost(t)
	h.makePipes(t, "aaaaaaaa")
	h.startLog(t, "aaaaaaaa")
	first := h.holder(t, "aaaaaaaa")
	h.startLog(t, "aaaaaaaa")
	if second := h.holder(t, "aaaaaaaa"); second != first {
		t.Errorf("second start made process %d beside %d", second, first)
	}
	if alive, err := h.LogAlive(t.Context(), "aaaaaaaa"); err != nil || !alive {
		t.Errorf("alive %v, %v", alive, err)
	}
}

// Two processes racing for one task: one gives way and says that all is well.
func TestSecondWriterGivesWay(t *testing.T) {
	h := newHost(t)
	h.makePipes(t, "aaaaaaaa")
	h.startLog(t, "aaaaaaaa")
	code := logMain([]string{"--pipes", h.paths.IODir("aaaaaaaa"), "--logs", h.paths.LogDir("aaaaaaaa")})
	if code != 0 {
		t.Errorf("second writer ended with %d", code)
	}
}

// StopLog writes what the pipes still hold, the last line without newline too.
func TestStopLogDrains(t *testing.T) {
	h := newHost(t)
	h.makePipes(t, "aaaaaaaa")
	h.startLog(t, "aaaaaaaa")
	out := h.writer(t, "aaaaaaaa", fifo.Stdout)
	const lines = 1000
	var wanted []string
	for i := range lines {
		fmt.Fprintln(out, i)
		wanted = append(wanted, "stdout F "+strconv.Itoa(i))
	}
	fmt.Fprint(out, "no newline")
	wanted = append(wanted, "stdout F no newline")
	if err := h.StopLog(deadline(t), "aaaaaaaa"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wanted, h.read(t, "aaaaaaaa")); diff != "" {
		t.Errorf("log after stop (-want +got):\n%s", diff)
	}
	if alive, _ := h.LogAlive(t.Context(), "aaaaaaaa"); alive {
		t.Error("alive after stop")
	}
	if err := h.StopLog(t.Context(), "aaaaaaaa"); err != nil {
		t.Errorf("second stop: %v", err)
	}
}

// The FIFOs of the next task are others, even under the same name: the writer
// of the old ones ends by itself or is ended by StartLog.
func TestLogOfTheNextTask(t *testing.T) {
	h := newHost(t)
	h.makePipes(t, "aaaaaaaa")
	h.startLog(t, "aaaaaaaa")
	fmt.Fprintln(h.writer(t, "aaaaaaaa", fifo.Stdout), "first")
	if err := os.RemoveAll(h.paths.IODir("aaaaaaaa")); err != nil {
		t.Fatal(err)
	}
	h.makePipes(t, "aaaaaaaa")
	h.startLog(t, "aaaaaaaa")
	fmt.Fprintln(h.writer(t, "aaaaaaaa", fifo.Stdout), "second")
	if err := h.StopLog(deadline(t), "aaaaaaaa"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"stdout F first", "stdout F second"}, h.read(t, "aaaaaaaa")); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

// A killed log writer is replaced; the task's shim, which holds both ends, has
// lost nothing that was still in the pipe.
func TestLogWriterKilled(t *testing.T) {
	h := newHost(t)
	h.makePipes(t, "aaaaaaaa")
	h.startLog(t, "aaaaaaaa")
	shim, err := os.OpenFile(filepath.Join(h.paths.IODir("aaaaaaaa"), fifo.Stdout), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer shim.Close()
	log := h.follow(t, "aaaaaaaa")
	fmt.Fprintln(shim, "before")
	want(t, log, "stdout F before")
	killAndWait(t, h.holder(t, "aaaaaaaa"))
	fmt.Fprintln(shim, "between")
	h.startLog(t, "aaaaaaaa")
	want(t, log, "stdout F between")
}

// What the process keeps: no privilege, no way to gain any, and only what it
// opened itself.
func TestLogWriterIsConfined(t *testing.T) {
	h := newHost(t)
	h.makePipes(t, "aaaaaaaa")
	h.startLog(t, "aaaaaaaa")
	pid := h.holder(t, "aaaaaaaa")
	assertConfined(t, pid)
	session, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	if f := strings.Fields(string(session)); f[5] != strconv.Itoa(pid) {
		t.Errorf("session %s, want one of its own", f[5])
	}
	for fd, target := range descriptors(t, pid) {
		if fd <= 2 || strings.HasPrefix(target, h.paths.IO) || strings.HasPrefix(target, h.paths.Logs) ||
			strings.HasPrefix(target, "anon_inode:") || strings.HasPrefix(target, "pipe:") {
			continue
		}
		t.Errorf("descriptor %d is %s", fd, target)
	}
}

func (h host) holder(t testing.TB, uid spec.UID) int {
	t.Helper()
	pid, _, err := tasklog.Holder(h.paths.LogDir(uid))
	if err != nil || pid == 0 {
		t.Fatalf("log writer of %s: %d, %v", uid, pid, err)
	}
	return pid
}

func (h host) follow(t testing.TB, uid spec.UID) *logfile.Reader {
	t.Helper()
	r, err := logfile.Open(h.paths.LogDir(uid), logfile.Options{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func (h host) read(t testing.TB, uid spec.UID) []string {
	t.Helper()
	r, err := logfile.Open(h.paths.LogDir(uid), logfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got []string
	for {
		e, err := r.Next(context.Background())
		if err == io.EOF {
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, text(e))
	}
}

func text(e logfile.Entry) string {
	mark := " F "
	if e.Partial {
		mark = " P "
	}
	return string(e.Stream) + mark + string(e.Text)
}

func want(t testing.TB, r *logfile.Reader, wanted string) {
	t.Helper()
	e, err := r.Next(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	if got := text(e); got != wanted {
		t.Fatalf("got %.80q, want %.80q", got, wanted)
	}
}
