package confine

import "golang.org/x/sys/unix"

// Offsets in struct seccomp_data.
const (
	offsetNumber = 0
	offsetArch   = 4
)

// program is a list of allowed system calls as a BPF program: anything else
// fails with EPERM, a foreign architecture's call kills the process. Calls are
// tested in the order given.
func program(calls []uint32) []unix.SockFilter {
	prog := []unix.SockFilter{
		load(offsetArch),
		jumpIfEqual(auditArch, 1, 0),
		answer(unix.SECCOMP_RET_KILL_PROCESS),
		load(offsetNumber),
	}
	for i, call := range calls {
		// to the allow at the end, over the remaining tests and the refusal
		prog = append(prog, jumpIfEqual(call, uint8(len(calls)-i), 0))
	}
	return append(prog,
		answer(unix.SECCOMP_RET_ERRNO|uint32(unix.EPERM)),
		answer(unix.SECCOMP_RET_ALLOW))
}

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func jumpIfEqual(k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: yes, Jf: no, K: k}
}

func answer(k uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k}
}

// Pipes are the calls of a Go program that reads and writes files already open
// and makes or removes files below a folder already open: no socket, no exec,
// no mount, no namespace, no trace.
func Pipes() []uint32 {
	return []uint32{
		unix.SYS_READ, unix.SYS_WRITE, unix.SYS_PPOLL, unix.SYS_FUTEX, unix.SYS_EPOLL_PWAIT,
		unix.SYS_CLOSE, unix.SYS_OPENAT, unix.SYS_UNLINKAT, unix.SYS_FTRUNCATE, unix.SYS_FSYNC, unix.SYS_PREAD64,
		unix.SYS_FSTAT, fstatat, unix.SYS_LSEEK, unix.SYS_GETDENTS64, unix.SYS_FCNTL, unix.SYS_IOCTL, unix.SYS_WRITEV,
		unix.SYS_FCHMOD, unix.SYS_FDATASYNC,
		unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EVENTFD2, unix.SYS_PIPE2,
		unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MPROTECT, unix.SYS_MADVISE, unix.SYS_BRK, unix.SYS_PRCTL,
		unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK, unix.SYS_TGKILL,
		unix.SYS_CLONE, unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_GETTID, unix.SYS_GETPID, unix.SYS_SCHED_YIELD,
		unix.SYS_SCHED_GETAFFINITY, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_GETTIMEOFDAY,
		unix.SYS_GETRANDOM, unix.SYS_RESTART_SYSCALL, unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ,
		unix.SYS_TIMER_CREATE, unix.SYS_TIMER_SETTIME, unix.SYS_TIMER_DELETE,
	}
}

// Accept are the calls beyond [Pipes] of a program that serves a unix socket
// already listening.
func Accept() []uint32 {
	return append(Pipes(), unix.SYS_ACCEPT4, unix.SYS_GETSOCKOPT, unix.SYS_SETSOCKOPT, unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME,
		unix.SYS_SHUTDOWN, unix.SYS_RECVMSG, unix.SYS_SENDMSG)
}

// Network are the calls beyond [Accept] of a program that makes connections.
func Network() []uint32 {
	return append(Accept(), unix.SYS_SOCKET, unix.SYS_BIND, unix.SYS_CONNECT, unix.SYS_LISTEN,
		unix.SYS_RECVFROM, unix.SYS_SENDTO, unix.SYS_UNAME)
}
