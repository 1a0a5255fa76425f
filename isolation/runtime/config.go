package runtime

import (
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/isolation"
)

// maxSocketDir is the longest folder of shim sockets that containerd accepts:
// names below it reach the 108 bytes of a socket address.
const maxSocketDir = 42

// Config is where one host's runtime lives.
type Config struct {
	// HostID begins the names of this host's containerd namespaces.
	HostID string
	// Bin is the folder of containerd, containerd-shim-runc-v2 and runc.
	Bin string
	// Root keeps images and disks. Its path shows in tenants' mountinfo.
	Root string
	// State keeps what does not outlive a reboot, containerd's configuration too.
	State string
	// Sockets is the folder of the shims' sockets, at most 42 characters.
	Sockets string
	// Address is the socket of a containerd that a unit runs with the
	// configuration of [Config.File]; empty where a [Supervisor] runs it.
	Address string
	// LocalRegistries are addresses of the host itself, or on its link, that a pull
	// may connect to.
	LocalRegistries []netip.AddrPort

	Paths isolation.Paths
	Log   *slog.Logger
}

// Socket is the address of containerd's API.
func (c Config) Socket() string {
	if c.Address != "" {
		return c.Address
	}
	return filepath.Join(c.State, "containerd.sock")
}

// Check refuses paths that containerd would refuse, or take and misuse.
func (c Config) Check() error {
	for name, path := range map[string]string{
		"bin": c.Bin, "root": c.Root, "state": c.State, "sockets": c.Sockets, "socket": c.Socket(),
	} {
		if !filepath.IsAbs(path) || strings.ContainsAny(path, "\n\"\\") {
			return fault.New(fault.Invalid, "check runtime settings", "%s %q is not an absolute path", name, path)
		}
	}
	if len(c.Sockets) > maxSocketDir {
		return fault.New(fault.Invalid, "check runtime settings", "the shims' socket folder %q is longer than %d characters", c.Sockets, maxSocketDir).
			WithHint("choose a shorter --root")
	}
	return nil
}

// disabledPlugins are containerd's parts that nothing here uses: each would be
// a way in (NRI, CRI, image verifiers, added binaries), a second hand on tasks
// (the restart monitor) or time at every start.
func disabledPlugins() []string {
	return []string{
		"io.containerd.differ.v1.erofs",
		"io.containerd.grpc.v1.cri",
		"io.containerd.grpc.v1.streaming",
		"io.containerd.grpc.v1.transfer",
		"io.containerd.http.v1.pprof",
		"io.containerd.image-verifier.v1.bindir",
		"io.containerd.internal.v1.opt",
		"io.containerd.internal.v1.tracing",
		"io.containerd.metrics.v1.grpc-otel",
		"io.containerd.metrics.v1.grpc-prometheus",
		"io.containerd.monitor.container.v1.restart",
		"io.containerd.monitor.task.v1.cgroups",
		"io.containerd.mount-handler.v1.erofs",
		"io.containerd.nri.v1.nri",
		"io.containerd.snapshotter.v1.blockfile",
		"io.containerd.snapshotter.v1.erofs",
		"io.containerd.snapshotter.v1.native",
		"io.containerd.streaming.v1.manager",
		"io.containerd.tracing.processor.v1.otlp",
		"io.containerd.transfer.v1.local",
	}
}

// File is containerd's configuration. Root, state and socket are not enough to
// keep it apart from another containerd: shim sockets and temporary folders
// have shared defaults too, and version 4 reads the socket from a plugin's
// section and ignores [grpc]. The root file systems get nosuid and nodev here,
// for lack of another place; content is not shared between namespaces.
func (c Config) File() string {
	var disabled strings.Builder
	for _, id := range disabledPlugins() {
		fmt.Fprintf(&disabled, "  %q,\n", id)
	}
	return fmt.Sprintf(`# Made by gpuhost; changes are lost.
version = 4
root = %q
state = %q
temp = %q
imports = []
oom_score = -999
disabled_plugins = [
%s]
required_plugins = [
  "io.containerd.snapshotter.v1.overlayfs",
  "io.containerd.metadata.v1.bolt",
  "io.containerd.runtime.v2.task",
]

[debug]
level = "warn"

[plugins."io.containerd.server.v1.grpc"]
address = %q

[plugins."io.containerd.server.v1.ttrpc"]
address = %q

[plugins."io.containerd.shim.v1.manager"]
socket_dir = %q

[plugins."io.containerd.snapshotter.v1.overlayfs"]
mount_options = ["nosuid", "nodev"]

[plugins."io.containerd.metadata.v1.bolt"]
content_sharing_policy = "isolated"

[timeouts]
"io.containerd.timeout.bolt.open" = "10s"
`, c.Root, filepath.Join(c.State, "containerd"), c.temp(), disabled.String(),
		c.Socket(), c.Socket()+".ttrpc", c.Sockets)
}

func (c Config) temp() string       { return filepath.Join(c.State, "tmp") }
func (c Config) configFile() string { return filepath.Join(c.State, "containerd.toml") }
func (c Config) runcRoot() string   { return filepath.Join(c.State, "runc") }
func (c Config) logFile() string    { return filepath.Join(c.State, "containerd.log") }
