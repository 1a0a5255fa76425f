package nvml

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// process is one helper. It is owned by one caller at a time.
type process struct {
	stdin  io.WriteCloser
	cmd    *exec.Cmd
	frames chan Response // closed when the helper's output ends
	exited chan struct{}
	lastID uint64
}

// spawn starts a helper and waits for its hello.
func spawn(ctx context.Context, o Options) (*process, error) {
	cmd := exec.Command(o.Path, o.Args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	// A pipe of our own: exec's would be closed under the reader by Wait.
	stdout, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout = write
	cmd.Stderr = &lineLogger{log: o.Log}
	p := &process{stdin: stdin, cmd: cmd, frames: make(chan Response, 1), exited: make(chan struct{})}
	if err := p.start(write); err != nil {
		stdout.Close()
		return nil, fault.Wrap(fault.Unsupported, "start NVML helper", err)
	}
	hello := make(chan Hello, 1)
	go p.read(stdout, hello, o.Log)
	return p, p.greet(ctx, hello, o.StartDeadline)
}

// start runs the helper from a goroutine that keeps its thread until the helper
// has ended: the kernel delivers Pdeathsig when the starting *thread* ends, not
// the process.
func (p *process) start(stdout *os.File) error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		stdout.Close()
		started <- err
		if err != nil {
			return
		}
		_ = p.cmd.Wait() // how it ended does not matter: its output's end is what is acted on
		close(p.exited)
	}()
	return <-started
}

func (p *process) read(stdout io.ReadCloser, hello chan<- Hello, log *slog.Logger) {
	defer stdout.Close()
	defer close(p.frames)
	defer close(hello)
	in := bufio.NewReader(stdout)
	var h Hello
	if err := ReadFrame(in, &h); err != nil {
		return
	}
	hello <- h
	for {
		var r Response
		switch err := ReadFrame(in, &r); err {
		case nil:
			p.frames <- r
		case io.EOF:
			return
		default:
			log.Warn("NVML helper broke off", "error", err)
			return
		}
	}
}

func (p *process) greet(ctx context.Context, hello <-chan Hello, deadline time.Duration) error {
	timer := time.NewTimer(deadline)
	defer timer.Stop()
	var err error
	select {
	case h, ok := <-hello:
		switch {
		case !ok:
			err = fault.New(fault.Temporary, "start NVML helper", "it ended before it said hello")
		case h.Version != Version:
			err = fault.New(fault.Internal, "start NVML helper", "it speaks version %d, this agent %d", h.Version, Version).
				WithHint("install agent and helper of one package")
		default:
			err = h.Problem.Err()
		}
	case <-timer.C:
		err = fault.New(fault.Timeout, "start NVML helper", "NVML is not initialised after %v", deadline)
	case <-ctx.Done():
		err = fault.Wrap(fault.Timeout, "start NVML helper", ctx.Err())
	}
	if err != nil {
		p.abandon()
	}
	return err
}

// processError says that the process is of no more use, and whether it hangs.
type processError struct {
	hung bool
	err  error
}

func (e *processError) Error() string { return e.err.Error() }
func (e *processError) Unwrap() error { return e.err }

// call asks one question. After a *processError the process is of no more use.
func (p *process) call(q Request, deadline time.Duration) (Response, error) {
	p.lastID++
	q.ID = p.lastID
	timer := time.NewTimer(deadline)
	defer timer.Stop()
	// The question is far smaller than a pipe: writing it cannot block, as the
	// answer before it has been read.
	if err := WriteFrame(p.stdin, q); err != nil {
		return Response{}, &processError{err: fault.Wrap(fault.Temporary, "ask NVML helper", err)}
	}
	select {
	case r, ok := <-p.frames:
		if !ok || r.ID != q.ID {
			return Response{}, &processError{err: fault.New(fault.Temporary, "ask NVML helper", "it ended")}
		}
		return r, r.Problem.Err()
	case <-timer.C:
		return Response{}, &processError{hung: true, err: fault.New(fault.Timeout, "ask NVML for "+string(q.Method), "no answer after %v", deadline)}
	}
}

// abandon kills without waiting: a helper that hangs in the kernel does not end
// before its call returns, if ever.
func (p *process) abandon() {
	p.stdin.Close()
	_ = p.cmd.Process.Kill()
	go drain(p.frames)
}

// drain lets the reader of an abandoned process come to its end.
func drain(frames <-chan Response) {
	for range frames {
	}
}

// close lets the helper shut NVML down and end, and kills it when it does not.
func (p *process) close(patience time.Duration) {
	p.stdin.Close()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.exited:
		drain(p.frames)
	case <-timer.C:
		p.abandon()
	}
}

// lineLogger logs what the helper, or the library in it, writes to stderr.
type lineLogger struct{ log *slog.Logger }

const maxLogLine = 1024

func (l *lineLogger) Write(text []byte) (int, error) {
	l.log.Info("NVML helper says", "text", string(text[:min(len(text), maxLogLine)]))
	return len(text), nil
}
