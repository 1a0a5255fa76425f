package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// Survivor is a thread that a kill did not end in time. State D with a driver's
// function in Wchan means that the kernel itself hangs: only hand-over's
// quarantine and a reboot are left.
type Survivor struct {
	TID     int // the PID of a process with one thread
	Command string
	State   string // one letter, as in /proc/PID/stat
	Wchan   string // the kernel function it sleeps in; "" when unknown
}

// SurvivorsError says who outlived a kill. It is the cause inside the busy
// fault of [Tree.Kill].
type SurvivorsError struct {
	Survivors []Survivor
}

// mostNamed keeps the text short: a process may have thousands of threads.
const mostNamed = 8

// Error names the survivors, the first of many.
func (e *SurvivorsError) Error() string {
	var named []string
	for i, s := range e.Survivors {
		if i == mostNamed {
			named = append(named, fmt.Sprintf("and %d more", len(e.Survivors)-i))
			break
		}
		one := fmt.Sprintf("%d (%s) in state %s", s.TID, s.Command, s.State)
		if s.Wchan != "" {
			one += " at " + s.Wchan
		}
		named = append(named, one)
	}
	if len(named) == 0 {
		return "still alive: somebody whom the kernel does not name"
	}
	return "still alive: " + strings.Join(named, ", ")
}

// Kill ends every process below the parent and returns once the kernel says
// that none is left. When ctx ends first, the busy fault names the survivors.
func (t *Tree) Kill(ctx context.Context, uid spec.UID) error {
	dir, err := t.dir(uid)
	if err != nil {
		return err
	}
	err = os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
	if gone(err) {
		return nil
	}
	if err != nil {
		return fault.Wrap(fault.Internal, "kill instance "+string(uid), err)
	}
	err = waitEmpty(ctx, dir)
	if err == nil || ctx.Err() == nil {
		return fault.Wrap(fault.Internal, "wait for the end of instance "+string(uid), err)
	}
	return fault.Wrap(fault.Busy, "kill instance "+string(uid), outlived(dir))
}

// outlived names who is left in a cgroup whose time is over; nil if it emptied
// after all. The kernel's word is populated: cgroup.procs passes over a process of
// which only a thread hangs, on its way out, in a driver.
func outlived(dir string) error {
	busy, err := populated(dir)
	if err != nil || !busy {
		return err
	}
	left, err := threads(dir)
	if err != nil {
		return fmt.Errorf("name who is left: %w", err)
	}
	return survivors(left)
}

func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)
}

// waitEmpty sleeps until cgroup.events says populated 0. The kernel signals
// every change of that file to inotify, whose descriptor Go's poller waits on.
func waitEmpty(ctx context.Context, dir string) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("watch cgroup events: %w", err)
	}
	watch := os.NewFile(uintptr(fd), "inotify")
	defer watch.Close()
	if _, err := unix.InotifyAddWatch(fd, filepath.Join(dir, "cgroup.events"), unix.IN_MODIFY); err != nil {
		if gone(err) {
			return nil
		}
		return fmt.Errorf("watch cgroup events: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = watch.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 4096)
	for {
		busy, err := populated(dir)
		if err != nil || !busy {
			return err
		}
		if _, err := watch.Read(buf); err != nil {
			return fmt.Errorf("wait for cgroup events: %w", err)
		}
	}
}

func survivors(tids []int) *SurvivorsError {
	e := &SurvivorsError{}
	for _, tid := range tids {
		e.Survivors = append(e.Survivors, survivor(tid))
	}
	return e
}

// survivor describes a thread as far as /proc still tells.
func survivor(tid int) Survivor {
	proc := fmt.Sprintf("/proc/%d/", tid)
	s := Survivor{TID: tid, Command: "?", State: "?"}
	if stat, err := os.ReadFile(proc + "stat"); err == nil {
		s.Command, s.State = parseStat(string(stat))
	}
	if wchan, err := os.ReadFile(proc + "wchan"); err == nil && string(wchan) != "0" {
		s.Wchan = string(wchan)
	}
	return s
}

// parseStat finds command and state in /proc/PID/stat. The command is the
// tenant's own text and may hold anything, closing brackets included: the last
// one ends it.
func parseStat(text string) (command, state string) {
	from, to := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if from < 0 || to < from {
		return "?", "?"
	}
	state, _, _ = strings.Cut(strings.TrimSpace(text[to+1:]), " ")
	return strings.ToValidUTF8(text[from+1:to], "?"), state
}
