package probe

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/isolation/warden/canary"
)

// call is one system call of a script and what the kernel returned.
// script_*.s knows its layout.
type call struct {
	number uintptr
	args   [4]uintptr
	result uintptr
}

// script is all that a child does, one system call after the other, the last of
// them exit. The child needs no stack, no Go and no memory but this.
type script struct {
	calls []call
	text  []byte         // paths, each with a zero at its end
	must  map[int]string // calls that have to succeed, and what they are for
	tries []try
}

// try is one node's place in the script; a node that is not to be opened has none.
type try struct {
	open int // index of its call
	text int // where its path begins
	odd  unix.Errno
}

const opening = unix.O_RDWR | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC

func newScript(t canary.Tries) *script {
	s := &script{must: make(map[int]string)}
	s.succeed("let go of what was open", unix.SYS_CLOSE_RANGE, 0, uintptr(^uint32(0)), 0)
	s.dieWithParent()
	for _, n := range t.Root {
		s.try(n)
	}
	if len(t.Tenant) > 0 {
		id := uintptr(t.UID)
		s.succeed("drop groups", unix.SYS_SETGROUPS, 0, 0)
		s.succeed("become the tenant's group", unix.SYS_SETRESGID, id, id, id)
		s.succeed("become the tenant's user", unix.SYS_SETRESUID, id, id, id)
		s.dieWithParent() // to become somebody else takes it back
	}
	for _, n := range t.Tenant {
		s.try(n)
	}
	s.call(unix.SYS_EXIT_GROUP, 0)
	return s
}

func (s *script) call(number uintptr, args ...uintptr) {
	c := call{number: number}
	copy(c.args[:], args)
	s.calls = append(s.calls, c)
}

func (s *script) succeed(what string, number uintptr, args ...uintptr) {
	s.must[len(s.calls)] = what
	s.call(number, args...)
}

// dieWithParent leaves nothing behind in a tenant's cgroup when the canary ends in
// mid-visit.
func (s *script) dieWithParent() {
	s.succeed("die with the canary", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL))
}

// try opens the node and closes it: nothing else is open, so it is descriptor 0.
// Another file in its place would answer for the wrong device and is left alone:
// ENODEV says that the node was not tried.
func (s *script) try(n canary.Node) {
	var st unix.Stat_t
	if unix.Stat(n.Path, &st) == nil && !isDevice(st, n) {
		s.tries = append(s.tries, try{odd: unix.ENODEV})
		return
	}
	s.tries = append(s.tries, try{open: len(s.calls), text: len(s.text)})
	s.text = append(append(s.text, n.Path...), 0)
	at := unix.AT_FDCWD
	s.call(unix.SYS_OPENAT, uintptr(at), 0, opening)
	s.call(unix.SYS_CLOSE, 0)
}

func isDevice(st unix.Stat_t, node canary.Node) bool {
	kind := st.Mode & unix.S_IFMT
	return (kind == unix.S_IFCHR || kind == unix.S_IFBLK) && st.Rdev == unix.Mkdev(node.Major, node.Minor)
}

// cloneArgs is struct clone_args of clone3(2).
type cloneArgs struct {
	flags, pidfd, _, _, exitSignal, _, _, _, _, _, cgroup uint64
}

// run has a child of this process do the script inside the cgroup and waits for
// its end, which comes at the latest when nobody holds the other end of the pipe.
func (s *script) run(cgroup, pipe int) error {
	var memory runtime.Pinner // until the child has ended: Go does not see it
	defer memory.Unpin()
	memory.Pin(&s.calls[0])
	if len(s.text) > 0 {
		memory.Pin(&s.text[0])
	}
	for _, t := range s.tries {
		if t.odd == 0 {
			s.calls[t.open].args[1] = uintptr(unsafe.Pointer(&s.text[t.text]))
		}
	}
	pidfd := int32(-1)
	memory.Pin(&pidfd)
	args := cloneArgs{
		// No handler of Go's may run in the child.
		flags: unix.CLONE_VM | unix.CLONE_CLEAR_SIGHAND | unix.CLONE_INTO_CGROUP | unix.CLONE_PIDFD,
		pidfd: uint64(uintptr(unsafe.Pointer(&pidfd))), exitSignal: uint64(unix.SIGCHLD), cgroup: uint64(cgroup),
	}
	pid := spawn(&args, unsafe.Sizeof(args), &s.calls[0])
	if errno := errnoOf(pid); errno != 0 {
		return fmt.Errorf("clone into the cgroup: %w", errno)
	}
	defer unix.Close(int(pidfd))
	return await(int(pid), int(pidfd), pipe)
}

// errAlone says that who asked is gone.
var errAlone = errors.New("the agent is gone")

// await returns once the child has ended, or fails the whole process: the child
// uses its memory.
func await(pid, pidfd, pipe int) error {
	state := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}, {Fd: int32(pipe)}}
	for state[0].Revents == 0 && state[1].Revents == 0 {
		if _, err := unix.Poll(state, -1); err != nil && err != unix.EINTR {
			panic(fmt.Sprintf("wait for process %d: %v", pid, err))
		}
	}
	alone := state[0].Revents == 0
	if alone {
		_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0) // it has not been waited for, and so is there
	}
	var status unix.WaitStatus
	for _, err := unix.Wait4(pid, &status, 0, nil); err != nil; _, err = unix.Wait4(pid, &status, 0, nil) {
		if err != unix.EINTR {
			panic(fmt.Sprintf("wait for process %d: %v", pid, err))
		}
	}
	switch {
	case alone:
		return errAlone
	case status.Signaled():
		return fmt.Errorf("it was ended by %s in mid-visit", unix.SignalName(status.Signal()))
	}
	return nil
}

// tried gives what came of each try; nothing is known of any where something went
// wrong on the way.
func (s *script) tried() ([]unix.Errno, error) {
	for i, what := range s.must {
		if errno := errnoOf(s.calls[i].result); errno != 0 {
			return nil, fmt.Errorf("%s: %w", what, errno)
		}
	}
	errnos := make([]unix.Errno, len(s.tries))
	for i, t := range s.tries {
		errnos[i] = t.odd
		if t.odd == 0 {
			errnos[i] = errnoOf(s.calls[t.open].result)
		}
	}
	return errnos, nil
}

// errnoOf reads what a system call returned: the kernel's errors are -4095 to -1.
func errnoOf(result uintptr) unix.Errno {
	const most = 4095
	if n := -result; n >= 1 && n <= most {
		return unix.Errno(n)
	}
	return 0
}

// spawn makes a process as clone3(2) does, which does script and nothing else. It
// gives the child's pid or a negative errno.
//
//go:noescape
func spawn(args *cloneArgs, size uintptr, script *call) uintptr
