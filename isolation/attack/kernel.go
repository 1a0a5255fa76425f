package attack

import (
	"os/exec"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// namespaces: each new one would give capabilities over something.
func namespaces() []Case {
	var cases []Case
	for _, n := range []struct {
		name string
		flag int
	}{
		{"user", unix.CLONE_NEWUSER}, {"mnt", unix.CLONE_NEWNS}, {"net", unix.CLONE_NEWNET}, {"pid", unix.CLONE_NEWPID},
		{"ipc", unix.CLONE_NEWIPC}, {"uts", unix.CLONE_NEWUTS}, {"cgroup", unix.CLONE_NEWCGROUP}, {"time", unix.CLONE_NEWTIME},
	} {
		join := func() error {
			fd, err := unix.Open("/proc/self/ns/"+n.name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Setns(fd, n.flag)
		}
		cases = append(cases,
			Case{"unshare " + n.name, func() error { return unix.Unshare(n.flag) }, "EPERM"},
			Case{"setns " + n.name, join, "EPERM"},
		)
	}
	clone := func() error {
		cmd := exec.Command("/bin/true")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
		return cmd.Run()
	}
	return append(cases,
		Case{"clone with a user namespace", clone, "EPERM"},
		Case{"clone3", call(unix.SYS_CLONE3), "ENOSYS"},
	)
}

// mounts: the old calls and the new ones.
func mounts() []Case {
	mount := func(fsType, target string, flags uintptr) func() error {
		return func() error { return unix.Mount("none", target, fsType, flags, "") }
	}
	return []Case{
		{"mount tmpfs", mount("tmpfs", "/tmp", 0), "EPERM"},
		{"mount proc", mount("proc", "/tmp", 0), "EPERM"},
		{"mount sysfs", mount("sysfs", "/tmp", 0), "EPERM"},
		{"mount cgroup, for its release_agent", mount("cgroup", "/tmp", 0), "EPERM"},
		{"mount overlay", mount("overlay", "/tmp", 0), "EPERM"},
		{"mount fuse", mount("fuse", "/tmp", 0), "EPERM"},
		{"mount debugfs", mount("debugfs", "/tmp", 0), "EPERM"},
		{"mount binfmt_misc", mount("binfmt_misc", "/tmp", 0), "EPERM"},
		{"remount / with devices", mount("", "/", unix.MS_REMOUNT|unix.MS_BIND), "EPERM"},
		{"remount /sys writable", mount("", "/sys", unix.MS_REMOUNT|unix.MS_BIND), "EPERM"},
		{"share mounts with the host", mount("", "/", unix.MS_SHARED|unix.MS_REC), "EPERM"},
		{"unmount a mask", func() error { return unix.Unmount("/proc/kcore", unix.MNT_DETACH) }, "EPERM"},
		{"unmount /etc/resolv.conf", func() error { return unix.Unmount("/etc/resolv.conf", unix.MNT_DETACH) }, "EPERM"},
		{"pivot_root", func() error { return unix.PivotRoot("/tmp", "/tmp") }, "EPERM"},
		{"fsopen", call(unix.SYS_FSOPEN), "EPERM"},
		{"fsconfig", call(unix.SYS_FSCONFIG), "EPERM"},
		{"fsmount", call(unix.SYS_FSMOUNT), "EPERM"},
		{"fspick", call(unix.SYS_FSPICK), "EPERM"},
		{"open_tree", call(unix.SYS_OPEN_TREE), "EPERM"},
		{"move_mount", call(unix.SYS_MOVE_MOUNT), "EPERM"},
		{"mount_setattr", call(unix.SYS_MOUNT_SETATTR), "EPERM"},
		{"swapon", call(unix.SYS_SWAPON), "EPERM"},
		{"quotactl", call(unix.SYS_QUOTACTL), "EPERM"},
	}
}

// calls reach deep into the kernel, or past the tenant's namespaces.
func calls() []Case {
	attributes := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{}))}
	perf := func() error {
		fd, err := unix.PerfEventOpen(&attributes, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
	return []Case{
		{"io_uring_setup", call(unix.SYS_IO_URING_SETUP), "EPERM"},
		{"io_uring_enter", call(unix.SYS_IO_URING_ENTER), "EPERM"},
		{"io_uring_register", call(unix.SYS_IO_URING_REGISTER), "EPERM"},
		{"userfaultfd", call(unix.SYS_USERFAULTFD), "EPERM"},
		{"bpf", call(unix.SYS_BPF), "EPERM"},
		{"perf_event_open", perf, "EPERM"},
		{"keyctl", call(unix.SYS_KEYCTL), "EPERM"},
		{"add_key", call(unix.SYS_ADD_KEY), "EPERM"},
		{"request_key", call(unix.SYS_REQUEST_KEY), "EPERM"},
		{"open_by_handle_at", call(unix.SYS_OPEN_BY_HANDLE_AT), "EPERM"},
		{"process_vm_readv", call(unix.SYS_PROCESS_VM_READV), "EPERM"},
		{"process_vm_writev", call(unix.SYS_PROCESS_VM_WRITEV), "EPERM"},
		{"pidfd_getfd", call(unix.SYS_PIDFD_GETFD), "EPERM"},
		{"kcmp", call(unix.SYS_KCMP), "EPERM"},
		{"init_module", call(unix.SYS_INIT_MODULE), "EPERM"},
		{"finit_module", call(unix.SYS_FINIT_MODULE), "EPERM"},
		{"delete_module", call(unix.SYS_DELETE_MODULE), "EPERM"},
		{"kexec_load", call(unix.SYS_KEXEC_LOAD), "EPERM"},
		{"kexec_file_load", call(unix.SYS_KEXEC_FILE_LOAD), "EPERM"},
		{"reboot", call(unix.SYS_REBOOT), "EPERM"},
		{"acct", call(unix.SYS_ACCT), "EPERM"},
		{"clock_settime", call(unix.SYS_CLOCK_SETTIME), "EPERM"},
		{"settimeofday", call(unix.SYS_SETTIMEOFDAY), "EPERM"},
		{"syslog", call(unix.SYS_SYSLOG), "EPERM"},
		{"sethostname", func() error { return unix.Sethostname([]byte("other")) }, "EPERM"},
		{"setdomainname", func() error { return unix.Setdomainname([]byte("other")) }, "EPERM"},
		{"vhangup", call(unix.SYS_VHANGUP), "EPERM"},
		{"move_pages", call(unix.SYS_MOVE_PAGES), "EPERM"},
		{"fanotify_init", call(unix.SYS_FANOTIFY_INIT), "EPERM"},
		{"lookup_dcookie", call(unix.SYS_LOOKUP_DCOOKIE), "EPERM"},
	}
}
