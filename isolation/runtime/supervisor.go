package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"golang.org/x/sys/unix"
)

// The pause before containerd is started again doubles from the first to the
// last of these while it keeps dying, and begins anew once it has lived.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 30 * time.Second
	livedLong  = time.Minute
	stopGrace  = 10 * time.Second
)

// Supervisor runs containerd where no unit does. containerd is in a session of
// its own and outlives this process; the next supervisor finds it by its
// command line and watches it instead of starting a second.
//
//	┌──── find ◀───────────────┐
//	│ none        │ one        │ after a pause
//	▼             ▼            │
//	start ─────▶ watch ── it ended
type Supervisor struct {
	config Config
}

// NewSupervisor makes a supervisor; [Supervisor.Run] does the work. Only one
// may run for one configuration.
func NewSupervisor(config Config) *Supervisor { return &Supervisor{config: config} }

// Run keeps one containerd running until ctx ends, and leaves it running then.
func (s *Supervisor) Run(ctx context.Context) error {
	if err := s.prepare(); err != nil {
		return fault.Wrap(fault.Internal, "prepare containerd", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var bounding sync.WaitGroup
	bounding.Go(func() { s.boundLog(ctx) })
	defer bounding.Wait()
	defer cancel()
	pause := firstPause
	for {
		started := time.Now()
		err := s.runOnce(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(started) > livedLong {
			pause = firstPause
		}
		s.config.Log.Warn("containerd ended", "error", err, "pause", pause)
		if !wait(ctx, pause) {
			return nil
		}
		pause = min(2*pause, lastPause)
	}
}

func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Stop ends containerd gracefully. Tenants run on without it.
func (s *Supervisor) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	process, err := s.find()
	if err != nil || process == nil {
		return err
	}
	defer process.Close()
	if err := process.Signal(unix.SIGTERM); err != nil {
		return fmt.Errorf("stop containerd: %w", err)
	}
	if process.Wait(ctx) == nil {
		return nil
	}
	if err := process.Signal(unix.SIGKILL); err != nil {
		return fmt.Errorf("kill containerd: %w", err)
	}
	return process.Wait(context.WithoutCancel(ctx))
}

func (s *Supervisor) prepare() error {
	c := s.config
	if err := c.Check(); err != nil {
		return err
	}
	for _, dir := range []string{c.Root, c.State, c.Sockets, c.temp(), c.runcRoot()} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return err
		}
	}
	return os.WriteFile(c.configFile(), []byte(c.File()), 0o600)
}

// runOnce watches the containerd that is there, or starts one, and returns
// when it has ended.
func (s *Supervisor) runOnce(ctx context.Context) error {
	found, err := s.find()
	if err != nil {
		return err
	}
	if found != nil {
		s.config.Log.Info("containerd found", "pid", found.Pid())
		defer found.Close()
		return found.Wait(ctx)
	}
	return s.start(ctx)
}

func (s *Supervisor) start(ctx context.Context) error {
	output, err := os.OpenFile(s.config.logFile(), logFlags|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer output.Close()
	args := s.args()
	cmd := exec.Command(args[0], args[1:]...)
	// It must never write to a pipe of ours: the first line after our death would
	// end it.
	cmd.Stdout, cmd.Stderr = output, output
	// Nothing of our own environment but the folder of the shim and runc.
	cmd.Env = []string{"PATH=" + s.config.Bin + ":/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start containerd: %w", err)
	}
	s.config.Log.Info("containerd started", "pid", cmd.Process.Pid)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// args is containerd's command line, which also names it among all processes.
func (s *Supervisor) args() []string {
	return []string{filepath.Join(s.config.Bin, "containerd"), "--config", s.config.configFile()}
}

// find looks for the running containerd of this configuration.
func (s *Supervisor) find() (*process, error) {
	p, err := findProcess(s.args())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return p, err
}
