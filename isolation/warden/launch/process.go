package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// program is a warden to start.
type program struct {
	name   string // for errors
	path   string
	args   []string
	cgroup string // folder, made if it is missing; "" stays in the starter's
	procs  int    // processors of Go's
}

// warden is the program of a task's warden.
func (l *Launcher) warden(name string, args []string) program {
	return program{
		name: "warden " + name, path: l.config.Paths.Warden, args: args, cgroup: l.cgroup(cgroupTasks), procs: 1,
	}
}

// readyLimit bounds how long a warden may take to open its files when the
// caller's context has no deadline of its own.
const readyLimit = 10 * time.Second

// start runs p and returns once it says that it is ready.
func (l *Launcher) start(ctx context.Context, p program) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	ready, report, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make ready pipe: %w", err)
	}
	defer ready.Close()
	cmd := exec.Command(p.path, append(p.args, "--ready-fd", "3")...)
	cmd.ExtraFiles = []*os.File{report}
	cmd.Stderr = nil
	if l.config.Stderr != nil {
		cmd.Stderr = l.config.Stderr
	}
	err = spawn(cmd, p)
	report.Close()
	if err != nil {
		return fault.Wrap(fault.Internal, "start "+p.name, err)
	}
	if err := awaitReady(ctx, ready); err != nil {
		_ = cmd.Process.Kill()
		return fault.Wrap(fault.Temporary, "start "+p.name, err)
	}
	return nil
}

// spawn starts cmd apart from this process: a session and a cgroup of its own,
// few processors of Go's, and no signal when the starter dies. The child is
// reaped without a thread waiting for it.
func spawn(cmd *exec.Cmd, p program) error {
	cmd.Dir = "/"
	cmd.Env = environment(p.procs)
	pidfd := -1
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd}
	if p.cgroup != "" {
		fd, err := openCgroup(p.cgroup)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, fd
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	go reap(cmd, pidfd)
	return nil
}

// environment makes a Go program small and still: few processors, whose count is
// not looked up in the cgroup again and again.
func environment(procs int) []string {
	return []string{"GOMAXPROCS=" + strconv.Itoa(procs), "GODEBUG=containermaxprocs=0,updatemaxprocs=0", "GOTRACEBACK=single"}
}

func openCgroup(dir string) (int, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return -1, fmt.Errorf("make cgroup: %w", err)
	}
	if err := limit(dir); err != nil {
		return -1, err
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open cgroup %s: %w", dir, err)
	}
	return fd, nil
}

// limit bounds what all wardens of a cgroup take together, where the host has the
// controllers: a second wall behind the bounds that each keeps itself.
func limit(dir string) error {
	for file, value := range map[string]string{
		"cpu.max":     "400000 100000", // four CPUs
		"memory.high": "2147483648",    // much of it cache of what is written
		"pids.max":    "65536",
	} {
		if err := writeFile(filepath.Join(dir, file), value); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("limit cgroup of wardens: %w", err)
		}
	}
	return nil
}

func writeFile(file, value string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// reap waits in the runtime's poller until the child has ended, then collects
// it: os.Process.Wait alone would hold a thread for each warden.
func reap(cmd *exec.Cmd, pidfd int) {
	_ = awaitExit(context.Background(), pidfd)
	_ = cmd.Wait() // its exit code tells the agent nothing: what it did is in the kernel
}

// awaitExit waits until the process behind pidfd has ended, and closes pidfd.
func awaitExit(ctx context.Context, pidfd int) error {
	if err := unix.SetNonblock(pidfd, true); err != nil {
		unix.Close(pidfd)
		return fmt.Errorf("watch process: %w", err)
	}
	file := os.NewFile(uintptr(pidfd), "pidfd")
	defer file.Close()
	raw, err := file.SyscallConn()
	if err != nil {
		return fmt.Errorf("watch process: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	err = raw.Read(func(fd uintptr) bool {
		state := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(state, 0)
		return n > 0 || (err != nil && err != unix.EINTR)
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// awaitReady reads what the warden reports. Silence is its death.
func awaitReady(ctx context.Context, ready *os.File) error {
	stop := context.AfterFunc(ctx, func() { _ = ready.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	text, err := io.ReadAll(io.LimitReader(ready, 4096))
	switch {
	case ctx.Err() != nil:
		return fault.New(fault.Timeout, "", "not ready in time: %w", ctx.Err())
	case err != nil:
		return fmt.Errorf("read report: %w", err)
	case string(text) == "ready\n":
		return nil
	case len(text) == 0:
		return fault.New(fault.Internal, "", "it died without a word")
	}
	return fault.New(fault.Internal, "", "%s", strings.TrimSpace(string(text)))
}

func (l *Launcher) idArgs() []string {
	return []string{"--uid", strconv.Itoa(l.config.UID), "--gid", strconv.Itoa(l.config.GID)}
}
