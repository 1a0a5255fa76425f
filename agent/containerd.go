package agent

import (
	"path/filepath"

	"github.com/gpuhost/gpuhost/agent/config"
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
