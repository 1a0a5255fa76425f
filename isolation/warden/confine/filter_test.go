package confine

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// judge runs a filter as the kernel does, for the instructions it is made of.
func judge(t *testing.T, prog []unix.SockFilter, arch, call uint32) uint32 {
	t.Helper()
	var a uint32
	for pc := 0; pc < len(prog); pc++ {
		switch in := prog[pc]; in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			a = map[uint32]uint32{offsetArch: arch, offsetNumber: call}[in.K]
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			if a == in.K {
				pc += int(in.Jt)
			} else {
				pc += int(in.Jf)
			}
		case unix.BPF_RET | unix.BPF_K:
			return in.K
		default:
			t.Fatalf("instruction %d: unknown code %#x", pc, in.Code)
		}
	}
	t.Fatal("ran over the end")
	return 0
}

func TestFilterAllowsExactlyTheList(t *testing.T) {
	const refused = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	for name, calls := range map[string][]uint32{"pipes": Pipes(), "accept": Accept(), "network": Network(), "none": nil} {
		t.Run(name, func(t *testing.T) {
			prog := program(calls)
			for call := range uint32(1024) {
				want := uint32(refused)
				if slices.Contains(calls, call) {
					want = unix.SECCOMP_RET_ALLOW
				}
				if got := judge(t, prog, auditArch, call); got != want {
					t.Errorf("call %d: got %#x, want %#x", call, got, want)
				}
			}
			if got := judge(t, prog, auditArch, 0x40000000|unix.SYS_READ); got != refused {
				t.Errorf("x32 read: got %#x", got)
			}
			if got := judge(t, prog, unix.AUDIT_ARCH_I386, unix.SYS_READ); got != unix.SECCOMP_RET_KILL_PROCESS {
				t.Errorf("32-bit read: got %#x", got)
			}
		})
	}
}

// What no warden may ever do, whatever is added to the lists.
func TestListsLeaveOutWhatMatters(t *testing.T) {
	for _, call := range []uint32{
		unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV,
		unix.SYS_MOUNT, unix.SYS_SETNS, unix.SYS_UNSHARE, unix.SYS_CLONE3, unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN,
		unix.SYS_IO_URING_SETUP, unix.SYS_KEYCTL, unix.SYS_USERFAULTFD, unix.SYS_KILL, unix.SYS_PIDFD_GETFD,
		unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_INIT_MODULE, unix.SYS_SETUID, unix.SYS_CHROOT, unix.SYS_PIVOT_ROOT,
	} {
		if slices.Contains(Network(), call) {
			t.Errorf("call %d is allowed", call)
		}
	}
	for _, call := range []uint32{unix.SYS_SOCKET, unix.SYS_CONNECT, unix.SYS_BIND} {
		if slices.Contains(Accept(), call) {
			t.Errorf("a relay may make connections: call %d", call)
		}
	}
}
