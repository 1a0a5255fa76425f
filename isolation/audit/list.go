package audit

import "fmt"

// The lists below are written down here once more, apart from the builder of
// specifications: an audit that read the builder's would agree with any mistake
// in it. A test holds the two against each other.

// capability is a capability's bit and its name.
type capability struct {
	bit  uint
	name string
}

// permittedCaps are all a tenant's process may ever hold (linux/capability.h).
func permittedCaps() []capability {
	return []capability{
		{0, "CHOWN"}, {1, "DAC_OVERRIDE"}, {3, "FOWNER"}, {4, "FSETID"}, {5, "KILL"},
		{6, "SETGID"}, {7, "SETUID"}, {8, "SETPCAP"}, {10, "NET_BIND_SERVICE"}, {18, "SYS_CHROOT"},
	}
}

func permittedMask() (mask uint64) {
	for _, c := range permittedCaps() {
		mask |= 1 << c.bit
	}
	return mask
}

// namespaceKinds are all a task has of its own.
func namespaceKinds() []string {
	return []string{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"}
}

// driverPaths show GPUs of the whole host (D7).
func driverPaths() []string {
	return []string{
		"/proc/driver/nvidia/gpus", "/proc/driver/nvidia/patches", "/proc/driver/nvidia/registry",
		"/proc/driver/nvidia/suspend", "/proc/driver/nvidia/suspend_depth", "/proc/driver/nvidia/warnings",
		"/proc/driver/nvidia-fs", "/proc/driver/nvidia-nvlink", "/proc/driver/nvidia-nvswitch", "/proc/driver/nvidia-uvm",
	}
}

// kernelPaths show or change the host (K4).
func kernelPaths() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/bus/pci", "/sys/class/drm", "/sys/devices/virtual/powercap", "/sys/firmware", "/sys/kernel/debug",
		"/sys/module/gdrdrv", "/sys/module/nvidia", "/sys/module/nvidia_drm", "/sys/module/nvidia_fs",
		"/sys/module/nvidia_modeset", "/sys/module/nvidia_peermem", "/sys/module/nvidia_uvm",
		"/sys/devices/system/cpu/cpu0/thermal_throttle",
	}
}

// readOnlyPaths may be read but not written (K4).
func readOnlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/sys", "/sys/fs/cgroup"}
}

// number is a device's number.
type number struct{ major, minor uint32 }

// standardDevices are the nodes every container has, with their numbers.
func standardDevices() map[string]number {
	return map[string]number{
		"/dev/null": {1, 3}, "/dev/zero": {1, 5}, "/dev/full": {1, 7}, "/dev/random": {1, 8},
		"/dev/urandom": {1, 9}, "/dev/tty": {5, 0}, "/dev/pts/ptmx": {5, 2}, "/dev/ptmx": {5, 2},
	}
}

// majorPTY is that of every pseudo-terminal, /dev/console's included.
const majorPTY = 136

// tun is the one device runc always lets through, which the outer program stops.
func tun() number { return number{10, 200} }

// bait are nodes that no instance is ever granted beside its own: every GPU
// minor a host can have, the driver's other nodes, and ways into the machine.
func bait(uvmMajor uint32) map[string]number {
	nodes := map[string]number{
		"modeset": {195, 254}, "control": {195, 255}, "tun": tun(), "mem": {1, 1}, "port": {1, 4},
		"kmsg": {1, 11}, "fuse": {10, 229}, "vfio": {10, 196}, "kvm": {10, 232}, "loop-control": {10, 237},
	}
	for minor := range uint32(16) {
		nodes[fmt.Sprintf("nvidia%d", minor)] = number{195, minor}
	}
	if uvmMajor != 0 {
		nodes["uvm"] = number{uvmMajor, 0}
		nodes["uvm-tools"] = number{uvmMajor, 1}
	}
	return nodes
}
