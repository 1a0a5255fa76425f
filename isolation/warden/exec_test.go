package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/frame"
	"github.com/gpuhost/gpuhost/isolation/warden/launch"
)

func TestExecRelaysAllStreams(t *testing.T) {
	h := newHost(t)
	s := h.startExec(t, launch.ExecOptions{ID: "one", Stdin: true})
	c := connect(t, s)
	p := openProcess(t, s)

	c.send(t, frame.Frame{Type: frame.Stdin, Payload: []byte("to the process")})
	c.send(t, frame.Frame{Type: frame.CloseStdin})
	if got, err := io.ReadAll(p.stdin); err != nil || string(got) != "to the process" {
		t.Fatalf("stdin: %q, %v", got, err)
	}
	fmt.Fprint(p.stdout, "out")
	fmt.Fprint(p.stderr, "err")
	p.close()
	out, errs := c.readAll(t)
	if string(out) != "out" || string(errs) != "err" {
		t.Errorf("stdout %q, stderr %q", out, errs)
	}
	awaitRemoved(t, s.Dir)
}

// A process that ends before anybody looks has lost nothing.
func TestExecOutputWaitsForTheController(t *testing.T) {
	h := newHost(t)
	s := h.startExec(t, launch.ExecOptions{ID: "two"})
	p := openProcess(t, s)
	fmt.Fprint(p.stdout, "early")
	p.close()
	if out, _ := connect(t, s).readAll(t); string(out) != "early" {
		t.Errorf("stdout %q", out)
	}
	awaitRemoved(t, s.Dir)
}

func TestExecWithTerminalHasNoStderr(t *testing.T) {
	h := newHost(t)
	s := h.startExec(t, launch.ExecOptions{ID: "tty", Stdin: true, TTY: true})
	if s.Stderr != "" {
		t.Errorf("stderr is %q", s.Stderr)
	}
	c := connect(t, s)
	p := openProcess(t, s)
	fmt.Fprint(p.stdout, "prompt$ ")
	c.send(t, frame.Frame{Type: frame.Resized, Payload: []byte{0, 80, 0, 24}}) // the agent's, ignored here
	c.send(t, frame.Frame{Type: frame.Stdin, Payload: []byte("exit\n")})
	line := make([]byte, 5)
	if _, err := io.ReadFull(p.stdin, line); err != nil || string(line) != "exit\n" {
		t.Fatalf("stdin: %q, %v", line, err)
	}
	p.close()
	if out, _ := c.readAll(t); string(out) != "prompt$ " {
		t.Errorf("stdout %q", out)
	}
}

// The controller dies while the process writes more than any pipe holds: the
// process must run to its own end.
func TestExecControllerGone(t *testing.T) {
	h := newHost(t)
	s := h.startExec(t, launch.ExecOptions{ID: "gone", Stdin: true})
	c := connect(t, s)
	p := openProcess(t, s)
	chunk := bytes.Repeat([]byte("x"), 1<<20)
	done := make(chan error, 1)
	go func() {
		defer p.close()
		for range 16 {
			if _, err := p.stdout.Write(chunk); err != nil {
				done <- err
				return
			}
		}
		_, err := io.ReadAll(p.stdin) // a controller that is gone has ended the input
		done <- err
	}()
	if _, err := c.frames.Next(); err != nil {
		t.Fatal(err)
	}
	c.conn.Close() // what SIGKILL of the agent does to its sockets
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-deadline(t).Done():
		t.Fatal("the process is wedged in its pipe")
	}
	awaitRemoved(t, s.Dir)
}

func TestExecWithoutControllerDrains(t *testing.T) {
	h := newHost(t)
	s := h.startExec(t, launch.ExecOptions{ID: "nobody", Patience: 50 * time.Millisecond})
	p := openProcess(t, s)
	if _, err := p.stdout.Write(bytes.Repeat([]byte("x"), 1<<20)); err != nil {
		t.Fatal(err)
	}
	p.close()
	awaitRemoved(t, s.Dir)
}

func TestExecWithoutProcessEnds(t *testing.T) {
	h := newHost(t)
	s := h.startExec(t, launch.ExecOptions{ID: "never", Stdin: true, Patience: 50 * time.Millisecond})
	c := connect(t, s)
	if _, err := c.frames.Next(); err != io.EOF {
		t.Errorf("controller got %v, want EOF", err)
	}
	awaitRemoved(t, s.Dir)
}

// A silent process outlasts the patience: opening its pipes is sign enough.
func TestExecSilentProcessIsKept(t *testing.T) {
	h := newHost(t)
	s := h.startExec(t, launch.ExecOptions{ID: "silent", Patience: 100 * time.Millisecond})
	c := connect(t, s)
	p := openProcess(t, s)
	<-time.After(300 * time.Millisecond) // real time of another process's timer: nothing else to wait for
	fmt.Fprint(p.stdout, "late")
	p.close()
	if out, _ := c.readAll(t); string(out) != "late" {
		t.Errorf("stdout %q", out)
	}
}

func TestExecTakesOneController(t *testing.T) {
	h := newHost(t)
	s := h.startExec(t, launch.ExecOptions{ID: "single"})
	connect(t, s)
	p := openProcess(t, s)
	defer p.close()
	// The listener closes once the first is accepted; a connection made before
	// that ends without a word.
	conn, err := net.Dial("unix", s.Socket)
	if err == nil {
		defer conn.Close()
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err = conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("a second controller is kept")
		}
	}
}

func TestEndExecEndsTheRelay(t *testing.T) {
	h := newHost(t)
	s := h.startExec(t, launch.ExecOptions{ID: "ended", Stdin: true})
	c := connect(t, s)
	p := openProcess(t, s)
	defer p.close()
	if ids, err := h.Sessions("aaaaaaaa"); err != nil || len(ids) != 1 || ids[0] != "ended" {
		t.Errorf("sessions %q, %v", ids, err)
	}
	if err := h.EndExec(s); err != nil {
		t.Fatal(err)
	}
	if _, err := c.frames.Next(); err != io.EOF {
		t.Errorf("controller got %v, want EOF", err)
	}
}

func TestExecRelayIsConfined(t *testing.T) {
	h := newHost(t)
	s := h.startExec(t, launch.ExecOptions{ID: "confined", Stdin: true})
	c := connect(t, s)
	raw, err := c.conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var peer *unix.Ucred
	if err := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	assertConfined(t, int(peer.Pid))
	info, err := os.Stat(s.Socket)
	if err != nil || info.Mode().Perm() != 0o600 || info.Sys() == nil {
		t.Errorf("socket: %v, %v", info, err)
	}
}

func TestStartExecRefusesBadIDs(t *testing.T) {
	h := newHost(t)
	for _, id := range []string{"", ".", "../x", "a/b", "a\x00"} {
		if _, err := h.StartExec(t.Context(), launch.ExecOptions{Instance: "aaaaaaaa", ID: id}); err == nil {
			t.Errorf("id %q was taken", id)
		}
	}
}

func (h host) startExec(t testing.TB, o launch.ExecOptions) launch.Session {
	t.Helper()
	o.Instance = "aaaaaaaa"
	s, err := h.StartExec(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.EndExec(s) })
	return s
}

// controller is the agent's end of a session.
type controller struct {
	conn   *net.UnixConn
	frames *frame.Reader
	out    *frame.Writer
}

func connect(t *testing.T, s launch.Session) controller {
	t.Helper()
	conn, err := net.Dial("unix", s.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return controller{conn.(*net.UnixConn), frame.NewReader(conn), frame.NewWriter(conn)}
}

func (c controller) send(t *testing.T, f frame.Frame) {
	t.Helper()
	if err := c.out.Frame(f); err != nil {
		t.Fatal(err)
	}
}

func (c controller) readAll(t *testing.T) (out, errs []byte) {
	t.Helper()
	for {
		f, err := c.frames.Next()
		if err == io.EOF {
			return out, errs
		}
		if err != nil {
			t.Fatal(err)
		}
		switch f.Type {
		case frame.Stdout:
			out = append(out, f.Payload...)
		case frame.Stderr:
			errs = append(errs, f.Payload...)
		default:
			t.Fatalf("unexpected frame %v", f.Type)
		}
	}
}

// process is the container's side, opened in the shim's order and manner.
type process struct {
	stdin, stdout, stderr *os.File
}

func openProcess(t *testing.T, s launch.Session) *process {
	t.Helper()
	p := &process{stdout: openEnd(t, s.Stdout, os.O_WRONLY)}
	if s.Stderr != "" {
		p.stderr = openEnd(t, s.Stderr, os.O_WRONLY)
	}
	if s.Stdin != "" {
		// Blocks until the relay has a controller and opens its end.
		p.stdin = openEnd(t, s.Stdin, os.O_RDONLY)
	}
	t.Cleanup(p.close)
	return p
}

func openEnd(t *testing.T, path string, mode int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, mode, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (p *process) close() {
	for _, f := range []*os.File{p.stdin, p.stdout, p.stderr} {
		if f != nil {
			f.Close()
		}
	}
}

// awaitRemoved waits for the relay to have ended, which removes its folder last.
func awaitRemoved(t *testing.T, dir string) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "inotify")
	defer file.Close()
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(dir), unix.IN_DELETE); err != nil {
		t.Fatal(err)
	}
	if err := file.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var buf [4096]byte
	for {
		if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
			return
		}
		if _, err := file.Read(buf[:]); err != nil {
			t.Fatalf("session folder stays: %v: %s", err, strings.Join(list(dir), " "))
		}
	}
}

func list(dir string) (names []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
