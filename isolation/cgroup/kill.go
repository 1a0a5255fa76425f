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

// Survivor is a process that a kill did not end in time. State D with a driver's
// function in Wchan means that the kernel itself hangs: only hand-over's
// quarantine and a reboot are left.
type Survivor struct {
	PID     int
	Command string
	State   string // one letter, as in /proc/PID/stat
	Wchan   string // the kernel function it sleeps in; "" when unknown
}

// SurvivorsError says who outlived a kill. It is the cause inside the busy
// fault of [Tree.Kill].
type SurvivorsError struct {
	Survivors []Survivor
}

// Error names every survivor.
func (e *SurvivorsError) Error() string {
	var named []string
	for _, s := range e.Survivors {
		one := fmt.Sprintf("%d (%s) in state %s", s.PID, s.Command, s.State)
		if s.Wchan != "" {
			one += " at " + s.Wchan
		}
		named = append(named, one)
	}
	return "still alive: " + strings.Join(named, ", ")
}

// Kill ends every process below the parent and returns once the kernel says
// that none is left. When ctx ends first, the busy fault names the survivors.
func (t *Tree) Kill(ctx context.Context, uid spec.UID) error {
	dir := t.paths.CgroupDir(uid)
	err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
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
	left, _ := pids(dir)
	if len(left) == 0 {
		return nil // emptied between the deadline and the look
	}
	return fault.New(fault.Busy, "kill instance "+string(uid), "%w", survivors(left))
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

func survivors(pids []int) *SurvivorsError {
	e := &SurvivorsError{}
	for _, pid := range pids {
		e.Survivors = append(e.Survivors, survivor(pid))
	}
	return e
}

// survivor describes pid as far as /proc still tells.
func survivor(pid int) Survivor {
	proc := fmt.Sprintf("/proc/%d/", pid)
	s := Survivor{PID: pid, Command: "?", State: "?"}
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
