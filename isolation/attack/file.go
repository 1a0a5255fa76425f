package attack

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// kernelFiles: what /proc and /sys would let root of the host do or see.
func kernelFiles() []Case {
	var cases []Case
	for _, f := range []struct{ path, want string }{
		{"/proc/sys/kernel/core_pattern", "EACCES"},
		{"/proc/sys/kernel/modprobe", "EACCES"},
		{"/proc/sys/kernel/hotplug", "EACCES"},
		{"/proc/sys/vm/panic_on_oom", "EACCES"},
		{"/proc/sys/net/ipv4/ping_group_range", "EACCES"},
		{"/proc/sys/fs/binfmt_misc/register", "EACCES"},
		{"/proc/sysrq-trigger", "EACCES"},
		{"/proc/irq/default_smp_affinity", "EACCES"},
		{"/proc/bus/pci/00/00.0", "EACCES"},
		{"/sys/kernel/uevent_helper", "EROFS"},
		{"/sys/kernel/mm/ksm/run", "EROFS"},
		{"/sys/kernel/mm/transparent_hugepage/enabled", "EROFS"},
		{"/sys/block/vda/queue/read_ahead_kb", "EROFS"},
		{"/sys/fs/cgroup/cgroup.procs", "EACCES"},
		{"/sys/fs/cgroup/cgroup.subtree_control", "EACCES"},
		{"/etc/resolv.conf", "EACCES"},
	} {
		cases = append(cases, Case{"write " + f.path, openFor(f.path, unix.O_WRONLY), f.want})
	}
	return append(cases, hidden()...)
}

// hidden is what the host has and a tenant must not see, and what a tenant has
// and must not change.
func hidden() []Case {
	return []Case{
		{"read /proc/kcore", read("/proc/kcore"), "nothing"},
		{"read /proc/keys", read("/proc/keys"), "nothing"},
		{"read /proc/interrupts", read("/proc/interrupts"), "nothing"},
		{"read /proc/timer_list", read("/proc/timer_list"), "nothing"},
		{"read /proc/kmsg", read("/proc/kmsg"), "EACCES"},
		{"list /sys/kernel/debug", list("/sys/kernel/debug"), "nothing"},
		{"list /sys/kernel/tracing", list("/sys/kernel/tracing"), "nothing"},
		{"list /sys/firmware", list("/sys/firmware"), "nothing"},
		{"list /sys/bus/pci", list("/sys/bus/pci"), "nothing"},
		{"find /dev/kmsg", openFor("/dev/kmsg", unix.O_RDONLY), "ENOENT"},
		{"find /dev/mem", openFor("/dev/mem", unix.O_RDONLY), "ENOENT"},
		{"make a cgroup", func() error { return unix.Mkdir("/sys/fs/cgroup/own", 0o755) }, "EROFS"},
		{"make a release_agent", openFor("/sys/fs/cgroup/release_agent", unix.O_WRONLY|unix.O_CREAT), "EROFS"},
		{"see cgroups above its own", openFor("/sys/fs/cgroup/../../fs/cgroup/../cgroup.controllers", unix.O_RDONLY), "ENOENT"},
		{"write its uid_map", write("/proc/self/uid_map", "0 0 4294967295"), "EPERM"},
		{"write its gid_map", write("/proc/self/gid_map", "0 0 4294967295"), "EPERM"},
		{"escape the OOM killer", write("/proc/self/oom_score_adj", "-1000"), "EACCES"},
		{"add to the driver tree", openFor("/usr/local/nvidia/lib64/x", unix.O_WRONLY|unix.O_CREAT), "EROFS"},
		{"change the driver's library", openFor("/usr/local/nvidia/lib64/libcuda.so.1", unix.O_WRONLY), "EACCES"},
		{"replace /etc/hosts by another", func() error { return unix.Rename("/etc/passwd", "/etc/hosts") }, "EBUSY"},
		{"gain by a set-uid file", setuid, "no new privileges"},
	}
}

func write(path, text string) func() error {
	return func() error {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteString(text)
		return err
	}
}

var errNothing = errors.New("nothing")

// read answers "nothing" for a file that a mask made empty.
func read(path string) func() error {
	return func() error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		n, err := f.Read(make([]byte, 16))
		if n == 0 && errors.Is(err, io.EOF) {
			return errNothing
		}
		return err
	}
}

// list answers "nothing" for a folder that a mask made empty.
func list(path string) func() error {
	return func() error {
		entries, err := os.ReadDir(path)
		if err == nil && len(entries) == 0 {
			return errNothing
		}
		return err
	}
}

// setuid asks whether the kernel would honour the bit.
func setuid() error {
	set, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err == nil && set == 1 {
		return errors.New("no new privileges")
	}
	return err
}
