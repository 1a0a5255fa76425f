package agent

import (
	"context"
	"os"
	"path/filepath"

	"github.com/gpuhost/gpuhost/agent/config"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/isolation/runtime"
)

// runtimeConfig says where containerd lies, whoever runs it.
func runtimeConfig(paths config.Paths, c config.Runtime) runtime.Config {
	return runtime.Config{
		Bin: c.Dir, Address: c.Address, Root: filepath.Join(paths.Lib, "containerd"),
		State: filepath.Join(paths.Run, "containerd"), Sockets: filepath.Join(paths.Sockets, "shim"),
	}
}

// ContainerdConfig is the configuration of the containerd that a unit runs for the
// agent of a real host. The package gpuhost-runtime installs it.
func ContainerdConfig() string {
	return runtimeConfig(config.PathsBelow(""), config.Default().Runtime).File()
}

// findCgroup refuses to run without the cgroup that a unit keeps for tenants: one
// made in its place would be nobody's, and the unit would find it taken.
func (h *host) findCgroup(context.Context) error {
	if h.config.Runtime.Cgroup == "" {
		return nil
	}
	dir := filepath.Join(cgroupMount, h.config.Runtime.Cgroup)
	if _, err := os.Stat(dir); err != nil {
		return fault.New(fault.Unsupported, "find the tenants' cgroup", "%w", err).
			WithHint("systemctl start gpuhost-tenants; or another runtime.cgroup, see gpuhost config show --origin")
	}
	return nil
}
