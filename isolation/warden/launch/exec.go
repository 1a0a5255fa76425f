package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation/warden/fifo"
	"github.com/gpuhost/gpuhost/isolation/warden/relay"
)

// sessionsDir lies in Paths.IO beside the folders of tasks.
const sessionsDir = "exec"

// ExecOptions describe one exec session.
type ExecOptions struct {
	Instance spec.UID
	ID       string // the exec process's id in containerd: letters, digits, '-'
	Stdin    bool
	TTY      bool
	Patience time.Duration // zero is a minute; see relay.Options
}

// Session is a relay that runs. Socket takes one connection, which speaks
// agent/frame. The FIFOs are for containerd; one that the process does not have
// is "".
type Session struct {
	Dir                   string
	Socket                string
	Stdin, Stdout, Stderr string
}

// StartExec starts the relay of an exec process and returns once its FIFOs and
// its socket are there. Connect before starting the process: output waits for
// the controller, but no longer than the patience.
func (l *Launcher) StartExec(ctx context.Context, o ExecOptions) (Session, error) {
	if o.ID == "" || strings.ContainsAny(o.ID, "/\x00") || o.ID[0] == '.' {
		return Session{}, fault.New(fault.Invalid, "start exec", "bad id %q", o.ID)
	}
	parent := l.sessions()
	if err := l.makeSessions(parent); err != nil {
		return Session{}, err
	}
	s := newSession(filepath.Join(parent, string(o.Instance)+"-"+o.ID), o)
	if o.Patience == 0 {
		o.Patience = time.Minute
	}
	args := append([]string{"exec", "--dir", s.Dir, "--patience", o.Patience.String()}, l.idArgs()...)
	if o.Stdin {
		args = append(args, "--stdin")
	}
	if o.TTY {
		args = append(args, "--tty")
	}
	err := l.start(ctx, l.warden("exec", args))
	return s, err
}

func newSession(dir string, o ExecOptions) Session {
	s := Session{Dir: dir, Socket: filepath.Join(dir, relay.Socket), Stdout: filepath.Join(dir, fifo.Stdout)}
	if o.Stdin {
		s.Stdin = filepath.Join(dir, fifo.Stdin)
	}
	if !o.TTY {
		s.Stderr = filepath.Join(dir, fifo.Stderr)
	}
	return s
}

// EndExec takes the session's folder away, at which its relay ends. A session
// that is over already has none.
func (l *Launcher) EndExec(s Session) error {
	if filepath.Dir(s.Dir) != l.sessions() {
		return fault.New(fault.Invalid, "end exec", "%s is no session", s.Dir)
	}
	return os.RemoveAll(s.Dir)
}

// Sessions lists the ids of an instance's sessions that have a relay or have
// left a folder: after a restart the agent ends those whose process is gone.
func (l *Launcher) Sessions(uid spec.UID) ([]string, error) {
	entries, err := os.ReadDir(l.sessions())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if id, ok := strings.CutPrefix(e.Name(), string(uid)+"-"); ok {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// Terminals lists those of an instance's sessions that have a terminal and whose
// folder is still there.
func (l *Launcher) Terminals(uid spec.UID) ([]string, error) {
	ids, err := l.Sessions(uid)
	return slices.DeleteFunc(ids, func(id string) bool {
		s := newSession(filepath.Join(l.sessions(), string(uid)+"-"+id), ExecOptions{})
		_, err := os.Lstat(s.Stderr) // a terminal has no stream of its own for errors
		return err == nil
	}), err
}

func (l *Launcher) sessions() string { return filepath.Join(l.config.Paths.IO, sessionsDir) }

// makeSessions makes the folder whose children relays make and remove.
func (l *Launcher) makeSessions(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make sessions folder: %w", err)
	}
	if os.Geteuid() != 0 {
		return nil
	}
	if err := os.Chown(dir, l.config.UID, l.config.GID); err != nil {
		return fmt.Errorf("give sessions folder: %w", err)
	}
	return nil
}
