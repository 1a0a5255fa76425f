package oci

import "fmt"

// maskedPaths hide what the kernel shows of the host and of other tenants'
// GPUs (controls K4 and D7). runc passes over those that do not exist. The
// driver's version, params and capabilities stay readable: CUDA needs them.
func maskedPaths(cpus int) []string {
	masked := []string{
		"/proc/acpi",
		"/proc/asound",
		"/proc/interrupts",
		"/proc/kcore",
		"/proc/keys",
		"/proc/latency_stats",
		"/proc/sched_debug",
		"/proc/scsi",
		"/proc/timer_list",
		"/proc/timer_stats",
		"/proc/driver/nvidia/gpus",
		"/proc/driver/nvidia/patches",
		"/proc/driver/nvidia/registry",
		"/proc/driver/nvidia/suspend",
		"/proc/driver/nvidia/suspend_depth",
		"/proc/driver/nvidia/warnings",
		"/proc/driver/nvidia-fs",
		"/proc/driver/nvidia-nvlink",
		"/proc/driver/nvidia-nvswitch",
		"/proc/driver/nvidia-uvm",
		"/sys/bus/pci",
		"/sys/class/drm",
		"/sys/devices/virtual/powercap",
		"/sys/firmware",
		"/sys/kernel/debug",
		"/sys/module/gdrdrv",
		"/sys/module/nvidia",
		"/sys/module/nvidia_drm",
		"/sys/module/nvidia_fs",
		"/sys/module/nvidia_modeset",
		"/sys/module/nvidia_peermem",
		"/sys/module/nvidia_uvm",
	}
	for cpu := range cpus {
		masked = append(masked, fmt.Sprintf("/sys/devices/system/cpu/cpu%d/thermal_throttle", cpu))
	}
	return masked
}

func readonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}
