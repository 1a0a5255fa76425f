package oci

import (
	"slices"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// seccompProfile is containerd's default profile for the specification's
// capabilities, tightened (control K1). The default refuses by name what it
// does not list: io_uring, userfaultfd, bpf, keyctl and its kin, perf_event_open,
// the mount family, unshare, setns, open_by_handle_at; clone may make no
// namespace and clone3, whose flags no filter can read, answers ENOSYS.
func seccompProfile(spec *specs.Spec) *specs.LinuxSeccomp {
	profile := seccomp.DefaultProfile(spec)
	profile.Architectures = nativeOnly(profile.Architectures)
	var kept []specs.LinuxSyscall
	for _, rule := range profile.Syscalls {
		rule.Names = slices.DeleteFunc(slices.Clone(rule.Names), func(name string) bool {
			return slices.Contains(withdrawn(), name)
		})
		if len(rule.Names) > 0 {
			kept = append(kept, rule)
		}
	}
	profile.Syscalls = append(kept, sockets()...)
	return profile
}

// withdrawn are calls of the default profile that tenants do without. ptrace
// stays: it reaches only processes of the same user and pid namespace, and
// debuggers need it; process_vm_* do the same behind no such attachment.
func withdrawn() []string {
	return []string{
		"modify_ldt",                            // 16-bit segments, an old source of kernel faults
		"process_vm_readv", "process_vm_writev", // see above
		"socket", "socketpair", // allowed again by family below
		"socketcall", "ipc", // multiplexers of 32-bit ABIs whose arguments no filter sees
	}
}

// nativeOnly drops the 32-bit ABIs of the machine, whose system calls have
// other numbers and looser filters.
func nativeOnly(arches []specs.Arch) []specs.Arch {
	return slices.DeleteFunc(slices.Clone(arches), func(a specs.Arch) bool {
		return a != specs.ArchX86_64 && a != specs.ArchAARCH64
	})
}

// sockets lets UNIX sockets through, the internet families with the protocols
// of everyday life (a protocol nobody uses would load its kernel module) and
// NETLINK_ROUTE. runc joins the conditions of one rule with AND, and rules of
// one call with OR.
func sockets() []specs.LinuxSyscall {
	rules := []specs.LinuxSyscall{
		socketRule("socketpair", unix.AF_UNIX),
		socketRule("socket", unix.AF_UNIX),
		socketRule("socket", unix.AF_NETLINK, unix.NETLINK_ROUTE),
	}
	for _, protocol := range []uint64{unix.IPPROTO_IP, unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_ICMP} {
		rules = append(rules, socketRule("socket", unix.AF_INET, protocol))
	}
	for _, protocol := range []uint64{unix.IPPROTO_IP, unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_ICMPV6} {
		rules = append(rules, socketRule("socket", unix.AF_INET6, protocol))
	}
	return rules
}

func socketRule(call string, family uint64, protocol ...uint64) specs.LinuxSyscall {
	rule := specs.LinuxSyscall{
		Names: []string{call}, Action: specs.ActAllow,
		Args: []specs.LinuxSeccompArg{{Index: 0, Value: family, Op: specs.OpEqualTo}},
	}
	for _, p := range protocol {
		rule.Args = append(rule.Args, specs.LinuxSeccompArg{Index: 2, Value: p, Op: specs.OpEqualTo})
	}
	return rule
}
