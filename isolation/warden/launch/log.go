package launch

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation/warden/tasklog"
)

// StartLog makes the log of an instance's task be kept: it returns once a warden
// has both FIFOs of Paths.IODir open, which exist. One that reads them already
// is left alone; one that reads FIFOs of an earlier task is ended first.
func (l *Launcher) StartLog(ctx context.Context, uid spec.UID) error {
	pipes, err := tasklog.Identify(l.config.Paths.IODir(uid))
	if err != nil {
		return fault.Wrap(fault.Internal, "start log", err)
	}
	dir := l.config.Paths.LogDir(uid)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make log folder: %w", err)
	}
	pid, reads, err := tasklog.Holder(dir)
	if err != nil {
		return err
	}
	if pid != 0 && reads == pipes {
		return nil
	}
	if pid != 0 {
		if err := l.StopLog(ctx, uid); err != nil {
			return err
		}
	}
	args := append([]string{"log", "--pipes", l.config.Paths.IODir(uid), "--logs", dir}, l.idArgs()...)
	return l.start(ctx, l.warden("log", args))
}

// LogAlive says whether the present FIFOs of the instance have their reader.
func (l *Launcher) LogAlive(_ context.Context, uid spec.UID) (bool, error) {
	pid, reads, err := tasklog.Holder(l.config.Paths.LogDir(uid))
	if err != nil || pid == 0 {
		return false, err
	}
	pipes, err := tasklog.Identify(l.config.Paths.IODir(uid))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil && reads == pipes, err
}

// StopLog ends the log writer once what the pipes hold is written, and returns
// when it is gone. Without one there is nothing to do.
func (l *Launcher) StopLog(ctx context.Context, uid spec.UID) error {
	dir := l.config.Paths.LogDir(uid)
	pid, _, err := tasklog.Holder(dir)
	if err != nil || pid == 0 {
		return err
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open log writer %d: %w", pid, err)
	}
	// The number may have passed to another process before it was opened; the
	// descriptor cannot, and who holds the lock still is who it was.
	if again, _, err := tasklog.Holder(dir); err != nil || again != pid {
		unix.Close(pidfd)
		return err
	}
	if err := unix.PidfdSendSignal(pidfd, unix.SIGTERM, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		unix.Close(pidfd)
		return fmt.Errorf("stop log writer %d: %w", pid, err)
	}
	return fault.Wrap(fault.Timeout, "stop log", awaitExit(ctx, pidfd))
}
