package oci

import (
	"path"
	"strings"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// maxArgs bounds arguments and environment together; the kernel's own bound is
// a quarter of the stack limit.
const maxArgs = 1 << 20

// capabilities are all a tenant may ever hold (control I3). Missing from
// containerd's default are MKNOD, NET_RAW, SETFCAP and AUDIT_WRITE.
func capabilities() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE",
		"CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
	}
}

func process(in Input) (*specs.Process, error) {
	args, err := arguments(in)
	if err != nil {
		return nil, err
	}
	env, err := environment(in)
	if err != nil {
		return nil, err
	}
	if size := textSize(args) + textSize(env); size > maxArgs {
		return nil, refuse("arguments and environment are %d bytes, more than %d", size, maxArgs)
	}
	cwd, err := workdir(in.Image.WorkingDir)
	if err != nil {
		return nil, err
	}
	oom := 500 // tenants go before anything of the host
	return &specs.Process{
		Args:            args,
		Env:             env,
		Cwd:             cwd,
		User:            specs.User{UID: in.User.UID, GID: in.User.GID},
		NoNewPrivileges: true,
		Capabilities: &specs.LinuxCapabilities{
			Bounding: capabilities(), Effective: capabilities(), Permitted: capabilities(),
		},
		Rlimits:     rlimits(in),
		OOMScoreAdj: &oom,
	}, nil
}

// rlimits: no core dump reaches the host's core_pattern; pinned memory (RDMA)
// may grow to the memory limit.
func rlimits(in Input) []specs.POSIXRlimit {
	files := min(in.Files, 1<<20)
	locked := min(in.LockedMemory, uint64(max(in.Lease.Limits.Memory, 0)))
	return []specs.POSIXRlimit{
		{Type: "RLIMIT_CORE", Hard: 0, Soft: 0},
		{Type: "RLIMIT_MEMLOCK", Hard: locked, Soft: locked},
		{Type: "RLIMIT_NOFILE", Hard: files, Soft: min(files, 1<<16)},
	}
}

// arguments are the lease's command, whole, or the image's entrypoint.
func arguments(in Input) ([]string, error) {
	args := in.Lease.Command
	if len(args) == 0 {
		args = append(append([]string{}, in.Image.Entrypoint...), in.Image.Cmd...)
	}
	if len(args) == 0 || args[0] == "" {
		return nil, refuse("the image names no program").WithHint("give the instance a command")
	}
	for _, arg := range args {
		if strings.ContainsRune(arg, 0) {
			return nil, refuse("argument %q holds a NUL byte", arg)
		}
	}
	return args, nil
}

// workdir is where the process starts. runc makes a missing folder inside the
// root; what it must never be is a way through /proc to an open folder of the
// host (CVE-2024-21626).
func workdir(dir string) (string, error) {
	if dir == "" {
		return "/", nil
	}
	if !path.IsAbs(dir) || path.Clean(dir) != dir || strings.ContainsRune(dir, 0) || len(dir) > 4096 {
		return "", refuse("working folder %.80q is not an absolute, clean path", dir)
	}
	for _, top := range []string{"/proc", "/dev", "/sys"} {
		if dir == top || strings.HasPrefix(dir, top+"/") {
			return "", refuse("working folder %.80q lies below %s", dir, top)
		}
	}
	return dir, nil
}

func textSize(list []string) (size int) {
	for _, s := range list {
		size += len(s) + 1
	}
	return size
}

// refuse is the fault of an image or lease that asks for what is not granted.
func refuse(why string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, "build container specification", why, args...)
}
