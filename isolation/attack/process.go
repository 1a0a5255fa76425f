package attack

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// processes: those of the host, agent and shim among them, whose numbers a
// tenant has guessed, and what those left open in its own.
func processes() []Case {
	var cases []Case
	for i, pid := range hostPIDs() {
		proc := fmt.Sprintf("/proc/%d", pid)
		who := fmt.Sprintf("host process %d", i+1)
		cases = append(cases,
			Case{"signal " + who, func() error { return unix.Kill(pid, 0) }, "ESRCH"},
			Case{"trace " + who, func() error { return unix.PtraceAttach(pid) }, "ESRCH"},
			Case{"open " + who, func() error { _, err := unix.PidfdOpen(pid, 0); return err }, "ESRCH"},
			Case{"see the root of " + who, openFor(proc+"/root/etc/shadow", unix.O_RDONLY), "ENOENT"},
			Case{"see the descriptors of " + who, list(proc + "/fd"), "ENOENT"},
			Case{"read the memory of " + who, openFor(proc+"/mem", unix.O_RDWR), "ENOENT"},
			Case{"raise the priority of " + who, func() error { return unix.Setpriority(unix.PRIO_PROCESS, pid, -20) }, "ESRCH"},
		)
	}
	return append(cases,
		Case{"find a process of the host", strangers, "nothing"},
		Case{"find a descriptor inherited by process 1", inherited("/proc/1/fd", 2), "nothing"},
		Case{"raise its own priority", func() error { return unix.Setpriority(unix.PRIO_PROCESS, 0, -20) }, "EACCES"},
		Case{"become real time", realTime, "EPERM"},
		Case{"become a user outside its range", func() error { return unix.Setresuid(70000, 70000, 70000) }, "EINVAL"},
		Case{"give a file to a user outside its range", func() error { return unix.Chown("/root", 70000, 70000) }, "EINVAL"},
		Case{"set a file capability", setCapability, "EPERM"},
	)
}

// strangers answers "nothing" where each process in /proc is the instance's own:
// they are in the cgroup namespace's root, "/".
func strangers() error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		group, err := os.ReadFile("/proc/" + e.Name() + "/cgroup")
		if err == nil && len(group) > 0 && !ownCgroup(string(group)) {
			return nil
		}
	}
	return errNothing
}

func ownCgroup(text string) bool {
	own, err := os.ReadFile("/proc/self/cgroup")
	return err == nil && text == string(own)
}

// inherited answers "nothing" where no descriptor above the last is open.
func inherited(dir string, last int) func() error {
	return func() error {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if fd, err := strconv.Atoi(e.Name()); err == nil && fd > last {
				return nil
			}
		}
		return errNothing
	}
}

// Inherited lists the descriptors of this process beside 0, 1 and 2. It must be
// asked before anything else is opened.
func Inherited() error {
	for fd := uintptr(3); fd < 1024; fd++ {
		if _, err := unix.FcntlInt(fd, unix.F_GETFD, 0); !errors.Is(err, unix.EBADF) {
			return nil
		}
	}
	return errNothing
}

func realTime() error {
	return unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0)
}

func setCapability() error {
	// Version 2, effective, CAP_SYS_ADMIN.
	value := []byte{1, 0, 0, 2, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	return unix.Setxattr("/bin/busybox", "security.capability", value, 0)
}
