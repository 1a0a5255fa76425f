package attack

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// devices: nodes of anything, anywhere a tenant can write, and its own node
// changed.
func devices() []Case {
	var cases []Case
	for _, dir := range []string{"/root", "/tmp", "/dev", "/dev/shm"} {
		for _, d := range []struct {
			what         string
			kind         uint32
			major, minor uint32
		}{
			{"another GPU", unix.S_IFCHR, 195, 7},
			{"nvidiactl", unix.S_IFCHR, 195, 255},
			{"nvidia-modeset", unix.S_IFCHR, 195, 254},
			{"a MIG capability", unix.S_IFCHR, 234, 1},
			{"/dev/mem", unix.S_IFCHR, 1, 1},
			{"/dev/kmsg", unix.S_IFCHR, 1, 11},
			{"/dev/net/tun", unix.S_IFCHR, 10, 200},
			{"/dev/fuse", unix.S_IFCHR, 10, 229},
			{"a disk", unix.S_IFBLK, 8, 0},
			{"an NVMe disk", unix.S_IFBLK, 259, 0},
		} {
			try := func() error { return unix.Mknod(dir+"/node", d.kind|0o600, int(unix.Mkdev(d.major, d.minor))) }
			cases = append(cases, Case{fmt.Sprintf("make the node of %s in %s", d.what, dir), try, "EPERM"})
		}
	}
	const own = "/dev/nvidia0"
	return append(cases,
		Case{"open its own node's mode to all", func() error { return unix.Chmod(own, 0o666) }, "EROFS"},
		Case{"give its own node away", func() error { return unix.Chown(own, 1, 1) }, "EROFS"},
		Case{"remove its own node", func() error { return unix.Unlink(own) }, "EBUSY"},
		Case{"move its own node", func() error { return unix.Rename(own, "/dev/other") }, "EBUSY"},
		Case{"link its own node", func() error { return unix.Link(own, "/root/node") }, "EXDEV"},
		Case{"reset a PCI device", openFor("/sys/bus/pci/rescan", unix.O_WRONLY), "ENOENT"},
		Case{"unload the driver by sysfs", openFor("/sys/bus/pci/drivers_autoprobe", unix.O_WRONLY), "ENOENT"},
	)
}
