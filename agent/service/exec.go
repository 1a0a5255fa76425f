package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/frame"
	"github.com/gpuhost/gpuhost/agent/reconcile"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/agent/store"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/isolation/oci"
	"github.com/gpuhost/gpuhost/isolation/runtime"
	"github.com/gpuhost/gpuhost/isolation/warden/launch"
)

// Instances implements api.Instances.
type Instances struct {
	Loop     *reconcile.Loop
	Store    *store.Store
	Runtime  *runtime.Client
	Launcher *launch.Launcher
	Layout   isolation.Paths
	Log      *slog.Logger
}

// Verb implements api.Instances.
func (s Instances) Verb(ctx context.Context, who api.Caller, ref spec.Ref, verb api.Verb) (api.ChangeRef, error) {
	return Objects{Loop: s.Loop, Store: s.Store}.Verb(ctx, who, ref, verb)
}

// hangup is how long a command whose caller went away may take to end by itself.
const hangup = 2 * time.Second

// patience is how long a command may take to begin.
const patience = time.Minute

// Exec implements api.Instances. The command's output goes through a relay that
// outlives the agent; this side adds what only containerd knows, the exit.
func (s Instances) Exec(ctx context.Context, who api.Caller, ref spec.Ref, request api.ExecRequest) (io.ReadWriteCloser, error) {
	object, err := s.Store.Get(ref)
	if err != nil {
		return nil, err
	}
	user, err := execUser(request.User)
	if err != nil {
		return nil, err
	}
	id := string(spec.NewUID())
	relay, err := s.Launcher.StartExec(ctx, launch.ExecOptions{
		Instance: object.Metadata.UID, ID: id, Stdin: request.Stdin, TTY: request.TTY,
		Patience: patience + hangup, // it must not go before the command comes
	})
	if err != nil {
		return nil, err
	}
	session, err := s.begin(ctx, object, relay, runtime.ExecOptions{
		ID: id, Args: request.Command, User: user, TTY: request.TTY, Columns: request.Cols, Rows: request.Rows, Env: terminalEnv(request.TTY),
		Stdin: relay.Stdin, Stdout: relay.Stdout, Stderr: relay.Stderr,
	})
	if err != nil {
		if broken := s.Launcher.EndExec(relay); broken != nil {
			s.Log.Warn("end an exec that did not begin", "object", ref.String(), "error", broken)
		}
		return nil, execFault(ref, err)
	}
	s.Log.Info("exec", "object", ref.String(), "actor", who.Name, "id", id)
	return session, nil
}

// execFault says in the caller's words why a command did not start.
func execFault(ref spec.Ref, err error) error {
	if fault.Is(err, fault.Conflict) {
		return fault.New(fault.Conflict, "exec in "+ref.String(), "it does not run").
			WithHint("gpuhost start %s/%s", ref.Tenant, ref.Name)
	}
	return err
}

func terminalEnv(tty bool) []string {
	if !tty {
		return nil
	}
	return []string{"TERM=xterm-256color"}
}

func execUser(text string) (*isolation.User, error) {
	if text == "" {
		return nil, nil
	}
	user, err := oci.ResolveUser(text, nil)
	if err != nil {
		return nil, err
	}
	return &user, nil
}

// begin connects to the relay before the process starts, so that nothing of its
// output is lost.
func (s Instances) begin(ctx context.Context, object *spec.Object, relay launch.Session, o runtime.ExecOptions) (*execSession, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", relay.Socket)
	if err != nil {
		return nil, fmt.Errorf("reach the exec relay: %w", err)
	}
	process, err := s.Runtime.Exec(ctx, object.Metadata.Tenant, object.Metadata.UID, o)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if _, err := process.Start(ctx, patience); err != nil {
		return nil, errors.Join(err, abandon(ctx, process), conn.Close())
	}
	out, in := io.Pipe()
	e := &execSession{process: process, relay: conn, out: out, log: s.Log}
	e.ctx, e.cancel = context.WithCancel(context.WithoutCancel(ctx))
	e.tasks.Go(func() { e.pump(in) })
	reader, writer := io.Pipe()
	e.input = writer
	e.tasks.Go(func() { e.feed(reader) })
	return e, nil
}

// abandon ends a process that could not be started properly, although its caller
// may be gone already.
func abandon(ctx context.Context, process *runtime.ExecHandle) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), hangup)
	defer cancel()
	_ = process.Kill(ctx, unix.SIGKILL) // it may not run at all
	return process.Delete(ctx)
}

// execSession is the agent's side of one exec: frames in, frames out.
type execSession struct {
	process *runtime.ExecHandle
	relay   net.Conn
	out     *io.PipeReader
	input   *io.PipeWriter
	log     *slog.Logger
	tasks   sync.WaitGroup
	once    sync.Once

	ctx    context.Context // of the session; Close ends it
	cancel context.CancelFunc
}

// Read gives the command's frames.
func (e *execSession) Read(p []byte) (int, error) { return e.out.Read(p) }

// Write takes the caller's frames.
func (e *execSession) Write(p []byte) (int, error) { return e.input.Write(p) }

// Close hangs the command up: it is told, then killed.
func (e *execSession) Close() error {
	e.once.Do(func() {
		_ = e.input.Close()
		_ = e.out.Close()
		if err := e.within(func(ctx context.Context) error { return e.process.Kill(ctx, unix.SIGHUP) }); err == nil {
			ended := e.within(func(ctx context.Context) error { _, err := e.process.Wait(ctx); return err })
			if ended != nil {
				_ = e.within(func(ctx context.Context) error { return e.process.Kill(ctx, unix.SIGKILL) })
			}
		}
		e.cancel()
		_ = e.relay.Close()
		e.tasks.Wait()
		_ = e.within(func(ctx context.Context) error { return e.process.Delete(ctx) }) // gone already where it ended by itself
	})
	return nil
}

// within bounds one question to containerd, which may hang.
func (e *execSession) within(ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), hangup)
	defer cancel()
	return ask(ctx)
}

// lastWords is how long output is waited for once the command has ended: what it
// left running in the background may keep the streams open for ever.
const lastWords = time.Second

// pump passes the relay's frames on and, when the command has ended and its
// output too, the exit.
func (e *execSession) pump(to *io.PipeWriter) {
	exit := make(chan frame.Exit, 1)
	e.tasks.Go(func() {
		code, err := e.process.Wait(e.ctx)
		if err != nil && e.ctx.Err() == nil {
			e.log.Warn("wait for an exec", "error", err)
		}
		exit <- frame.Exit{Code: int32(code), Unknown: err != nil}
		_ = e.relay.SetReadDeadline(time.Now().Add(lastWords))
	})
	reader, writer := frame.NewReader(e.relay), frame.NewWriter(to)
	for {
		f, err := reader.Next()
		if err == nil {
			err = writer.Frame(f)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			_ = to.CloseWithError(err)
			return
		}
	}
	_ = writer.Exit(<-exit)
	_ = to.Close()
}

// feed passes the caller's frames to the relay, except what containerd does
// itself: the size of the terminal and the end of input.
func (e *execSession) feed(from *io.PipeReader) {
	reader, writer := frame.NewReader(from), frame.NewWriter(e.relay)
	for {
		f, err := reader.Next()
		if err != nil {
			_ = from.CloseWithError(err)
			return
		}
		switch f.Type {
		case frame.Resized:
			if size, err := f.Resize(); err == nil {
				e.resize(size)
			}
			continue
		case frame.CloseStdin:
			if err := e.process.CloseStdin(e.ctx); err != nil && !fault.Is(err, fault.NotFound) {
				e.log.Warn("close the input of an exec", "error", err)
			}
		}
		if err := writer.Frame(f); err != nil {
			_ = from.CloseWithError(err)
			return
		}
	}
}

func (e *execSession) resize(r frame.Resize) {
	if err := e.process.Resize(e.ctx, r.Cols, r.Rows); err != nil {
		e.log.Debug("resize a terminal", "error", err)
	}
}
