package oci

import (
	"slices"

	"github.com/gpuhost/gpuhost/isolation"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// quotaPeriod is the kernel's default period of cpu.max, in microseconds.
const quotaPeriod = 100_000

// resources are the limits on the task's cgroup, without those whose controller
// is missing, and the inner device program.
func resources(in Input) *specs.LinuxResources {
	limits := in.Lease.Limits
	r := &specs.LinuxResources{Devices: deviceRules(in.Nodes)}
	has := func(controller string) bool { return slices.Contains(in.Controllers, controller) }
	if has("cpu") && limits.CPU > 0 {
		r.CPU = cpu(int64(limits.CPU))
	}
	if has("cpuset") && limits.CPUSet != "" {
		if r.CPU == nil {
			r.CPU = &specs.LinuxCPU{}
		}
		r.CPU.Cpus = limits.CPUSet
	}
	if has("memory") && limits.Memory > 0 {
		// Memory and swap together may reach the memory limit: swap.max is 0.
		limit := int64(limits.Memory)
		r.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit}
		r.Unified = map[string]string{"memory.oom.group": "1"}
	}
	if has("pids") && limits.Pids > 0 {
		r.Pids = &specs.LinuxPids{Limit: &limits.Pids}
	}
	return r
}

// cpu turns thousandths of a core into a hard quota and a weight for the time
// when the host is full.
func cpu(milli int64) *specs.LinuxCPU {
	period := uint64(quotaPeriod)
	quota := max(milli*quotaPeriod/1000, 1000)
	shares := uint64(min(max(milli*1024/1000, 2), 262_144))
	return &specs.LinuxCPU{Quota: &quota, Period: &period, Shares: &shares}
}

// deviceRules deny everything and allow exactly the nodes, for reading and
// writing, never for mknod. runc adds the standard nodes, and a mknod rule that
// the outer program takes back.
func deviceRules(nodes []isolation.Node) []specs.LinuxDeviceCgroup {
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	for _, node := range nodes {
		major, minor := int64(node.Major), int64(node.Minor)
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &major, Minor: &minor, Access: "rw"})
	}
	return rules
}
