package oci

import (
	"github.com/gpuhost/gpuhost/isolation"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Input is all that a specification is made from.
type Input struct {
	Lease isolation.Lease
	Paths isolation.Paths
	Image imagespec.ImageConfig
	User  isolation.User
	// Env is the lease's environment with its secrets resolved.
	Env map[string]string
	// Nodes are the private device nodes that lie in the lease's node folder.
	Nodes []isolation.Node
	// Controllers are the cgroup controllers this machine has; a limit whose
	// controller is missing is left out, because runc fails on it.
	Controllers []string
	// CPUs is the number of possible CPUs, for the paths masked per CPU.
	CPUs int
	// Files and LockedMemory bound RLIMIT_NOFILE and RLIMIT_MEMLOCK (bytes): the
	// agent's own hard limits, beyond which runc may not be able to go.
	Files, LockedMemory uint64
}

// Build makes the specification or says with an invalid fault what in the
// lease or the image cannot be granted.
func Build(in Input) (*specs.Spec, error) {
	if ids := in.Lease.IDs; ids.Size != maxID+1 || ids.Start < maxID+1 {
		return nil, refuse("id range %d+%d is not a tenant's", ids.Start, ids.Size)
	}
	process, err := process(in)
	if err != nil {
		return nil, err
	}
	spec := &specs.Spec{
		Version:  specs.Version,
		Process:  process,
		Root:     &specs.Root{Path: "rootfs"},
		Hostname: in.Lease.Name,
		Mounts:   mounts(in),
		Linux:    linux(in),
	}
	spec.Linux.Seccomp = seccompProfile(spec)
	return spec, nil
}

func linux(in Input) *specs.Linux {
	return &specs.Linux{
		UIDMappings:       idMapping(in.Lease.IDs),
		GIDMappings:       idMapping(in.Lease.IDs),
		Namespaces:        namespaces(),
		CgroupsPath:       in.Paths.TaskCgroup(in.Lease.UID),
		Resources:         resources(in),
		RootfsPropagation: "private",
		MaskedPaths:       maskedPaths(in.CPUs),
		ReadonlyPaths:     readonlyPaths(),
		// Without CAP_NET_RAW, ping needs the kernel's own echo sockets; the
		// namespace is the tenant's, so this opens nothing elsewhere.
		Sysctl: map[string]string{"net.ipv4.ping_group_range": "0 65535"},
	}
}

func idMapping(ids isolation.IDRange) []specs.LinuxIDMapping {
	return []specs.LinuxIDMapping{{ContainerID: 0, HostID: ids.Start, Size: ids.Size}}
}

// namespaces are all the kernel has, all new. The network namespace is made by
// runc inside the user namespace: one that the host owned would let the tenant
// neither mount sysfs nor bind port 22.
func namespaces() []specs.LinuxNamespace {
	var all []specs.LinuxNamespace
	for _, kind := range []specs.LinuxNamespaceType{
		specs.UserNamespace, specs.PIDNamespace, specs.MountNamespace, specs.IPCNamespace,
		specs.UTSNamespace, specs.NetworkNamespace, specs.CgroupNamespace, specs.TimeNamespace,
	} {
		all = append(all, specs.LinuxNamespace{Type: kind})
	}
	return all
}
