package runtime

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// process is somebody else's child, held by a pidfd so that its number cannot
// come to mean another process.
type process struct {
	pid  int
	file *os.File
}

// findProcess finds the process of root with exactly this command line. A
// tenant could take the same one but is never host root. os.ErrNotExist says
// that there is none.
func findProcess(args []string) (*process, error) {
	want := []byte(strings.Join(args, "\x00") + "\x00")
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if p := openProcess(pid, dir, want); p != nil {
			return p, nil
		}
	}
	return nil, os.ErrNotExist
}

// openProcess opens the process before it looks at it: what the folder in
// /proc says then is said of the process that is held.
func openProcess(pid int, dir string, want []byte) *process {
	if line, err := os.ReadFile(dir + "/cmdline"); err != nil || !bytes.Equal(line, want) {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil
	}
	p := &process{pid: pid, file: os.NewFile(uintptr(fd), "pidfd")}
	line, err := os.ReadFile(dir + "/cmdline")
	var stat unix.Stat_t
	if err != nil || !bytes.Equal(line, want) || unix.Stat(dir, &stat) != nil || stat.Uid != 0 {
		p.Close()
		return nil
	}
	return p
}

// Pid is the process's number.
func (p *process) Pid() int { return p.pid }

// Close lets go of the process.
func (p *process) Close() { p.file.Close() }

// Signal sends a signal; a process that has ended already is no error.
func (p *process) Signal(signal unix.Signal) error {
	err := unix.PidfdSendSignal(int(p.file.Fd()), signal, nil, 0)
	if err == unix.ESRCH {
		return nil
	}
	return err
}

// Wait returns when the process has ended, with nil, or when ctx has.
func (p *process) Wait(ctx context.Context) error {
	woken := make(chan error, 1)
	fds := make([]int, 2)
	if err := unix.Pipe2(fds, unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	defer unix.Close(fds[0])
	go func() { woken <- pollEither(int(p.file.Fd()), fds[0]) }()
	select {
	case err := <-woken:
		unix.Close(fds[1])
		return err
	case <-ctx.Done():
		unix.Close(fds[1]) // wakes the poll
		<-woken
		return ctx.Err()
	}
}

// pollEither blocks until the process behind pidfd has ended or the other end
// of wake is closed.
func pollEither(pidfd, wake int) error {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}, {Fd: int32(wake), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		if err != unix.EINTR {
			return err
		}
	}
}
