package hosttest

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// outerStage starts init in new namespaces and waits for it. The process
// namespace is what makes the end certain: when init ends, however it ends, the
// kernel kills whatever the tests left running.
func outerStage(o options) (int, error) {
	// The parent-death signal is sent when the *thread* that forked ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	flags := unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC
	if !o.hostNetwork {
		flags |= unix.CLONE_NEWNET
	}
	child, err := start("init", &syscall.SysProcAttr{Cloneflags: uintptr(flags), Pdeathsig: syscall.SIGKILL})
	if err != nil {
		return 0, err
	}
	defer forwardSignals(child)()
	state, err := child.Wait()
	if err != nil {
		return 0, fmt.Errorf("wait for init: %w", err)
	}
	return exitCode(state.Sys().(syscall.WaitStatus)), nil
}

// initStage is process 1 of the namespaces: it prepares mounts and loopback,
// starts the tests, forwards signals and reaps orphans, as an init does.
func initStage() (int, error) {
	if err := prepare(); err != nil {
		return 0, err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	child, err := start("tests", &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL})
	if err != nil {
		return 0, err
	}
	defer forwardSignals(child)()
	return reapUntil(child.Pid)
}

// start re-executes this test binary, with its arguments, as the given stage.
func start(stage string, attr *syscall.SysProcAttr) (*os.Process, error) {
	// Setenv, not an addition to Environ: of two equal names the first counts, and
	// init would start inits for ever.
	if err := os.Setenv(stageVariable, stage); err != nil {
		return nil, fmt.Errorf("name stage %s: %w", stage, err)
	}
	child, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{
		Env:   os.Environ(),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys:   attr,
	})
	if err != nil {
		return nil, fmt.Errorf("start stage %s: %w", stage, err)
	}
	return child, nil
}

// forwardSignals passes on what go test sends: SIGQUIT asks for the stacks of
// the process that hangs, which is the innermost one.
func forwardSignals(to *os.Process) (stop func()) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	go func() {
		for s := range signals {
			// The child may have ended: its exit is what gets reported then.
			_ = to.Signal(s)
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
	}
}

// reapUntil waits for all children, adopted ones too, until pid has ended.
func reapUntil(pid int) (int, error) {
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return 0, fmt.Errorf("reap: %w", err)
		case got == pid:
			return exitCode(status), nil
		}
	}
}

// exitCode is a shell's view of how a process ended.
func exitCode(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}
