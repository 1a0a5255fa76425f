package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/config"
	"github.com/gpuhost/gpuhost/agent/reconcile"
	"github.com/gpuhost/gpuhost/agent/sim"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/agent/store"
	"github.com/gpuhost/gpuhost/agent/telemetry"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/drivers/nvml"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/isolation/audit"
	"github.com/gpuhost/gpuhost/isolation/cgroup"
	"github.com/gpuhost/gpuhost/isolation/node"
	"github.com/gpuhost/gpuhost/isolation/pin"
	"github.com/gpuhost/gpuhost/isolation/runtime"
	"github.com/gpuhost/gpuhost/isolation/warden/launch"
	"github.com/gpuhost/gpuhost/network"
	"github.com/gpuhost/gpuhost/network/router"
)

// cgroupMount is where cgroup v2 is mounted, on every host we support.
const cgroupMount = "/sys/fs/cgroup"

// host is one agent's parts. assemble makes them in the order of the fields:
// each needs only those before it.
type host struct {
	config   *config.Config // what the parts are made of
	live     atomic.Pointer[config.Config]
	reading  sync.Mutex // one reload at a time
	options  Options
	log      *slog.Logger
	logLevel *slog.LevelVar
	id       string
	boot     string
	paths    config.Paths
	layout   isolation.Paths
	started  time.Time
	cpus     spec.CPU
	memory   spec.Bytes

	samples samples
	silent  silence
	store   *store.Store
	metrics *telemetry.Telemetry

	nvml    *nvml.Client
	drivers *drivers.Room

	cgroups    *cgroup.Tree
	nodes      *node.Store
	pins       *pin.Pins
	launcher   *launch.Launcher
	supervisor *runtime.Supervisor // nil where a unit runs containerd
	runtime    *runtime.Client
	trees      *trees
	isolation  *isolation.Room
	guard      *guard

	kernel  *router.Kernel
	network *network.Room

	shared   *shared
	loop     *reconcile.Loop
	listener *net.UnixListener
	server   *api.Server

	closers []func() error
}

func newHost(cfg *config.Config, o Options, log *slog.Logger) *host {
	h := &host{
		config: cfg, options: o, log: log, id: config.HostID(o.Root), paths: config.PathsBelow(o.Root),
		started: time.Now(), samples: newSamples(),
	}
	h.live.Store(cfg)
	return h
}

// assemble makes the parts, in order. It changes only the agent's own folders and
// mounts; no tenant notices.
func (h *host) assemble(ctx context.Context, parts ...func(context.Context) error) error {
	for _, open := range parts {
		if err := open(ctx); err != nil {
			return errors.Join(err, h.close())
		}
	}
	return nil
}

// assembleAll makes all parts of a daemon.
func (h *host) assembleAll(ctx context.Context) error {
	return h.assemble(ctx, h.layOut, h.findCgroup, h.openStore, h.openDrivers, h.openIsolation, h.openRuntime, h.openNetwork, h.openRooms, h.openLoop, h.openAPI)
}

// close closes what assemble opened, last first. Nothing on the host changes.
func (h *host) close() error {
	var errs []error
	for i := len(h.closers) - 1; i >= 0; i-- {
		errs = append(errs, h.closers[i]())
	}
	h.closers = nil
	return errors.Join(errs...)
}

func (h *host) closing(f func() error) { h.closers = append(h.closers, f) }

// layOut decides where everything lies and makes the folders.
func (h *host) layOut(context.Context) error {
	run, lib := h.paths.Run, h.paths.Lib
	h.layout = isolation.Paths{
		Nodes: filepath.Join(run, "nodes"), Netns: filepath.Join(run, "netns"), IO: filepath.Join(run, "io"),
		Logs: filepath.Join(lib, "logs"), Etc: filepath.Join(lib, "instances"),
		CgroupRoot: cmp.Or(h.config.Runtime.Cgroup, "/gpuhost-"+h.id), CgroupMount: cgroupMount, Warden: h.config.Programs.Warden,
	}
	for _, dir := range []string{h.paths.Etc, lib, run, h.paths.Sockets, h.layout.Netns, h.layout.IO, h.layout.Logs, h.layout.Etc} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	h.boot = strings.TrimSpace(string(boot))
	return err
}

func (h *host) openStore(context.Context) error {
	key, err := store.LoadOrCreateKey(filepath.Join(h.paths.Lib, "secrets.key"))
	if err != nil {
		return err
	}
	h.store, err = store.Open(filepath.Join(h.paths.Lib, "state.db"), store.Options{Now: time.Now, BootID: h.boot, Key: key})
	if err != nil {
		return err
	}
	h.closing(h.store.Close)
	h.metrics = telemetry.New(telemetry.BuildInfo{
		Version: h.version().Version, Commit: h.version().Commit, GoVersion: h.version().Go,
	}, telemetry.Options{
		Hostname: hostname(), WithoutDCGM: !h.config.Telemetry.DCGM, HostnameLabel: h.config.Telemetry.HostnameLabel,
	})
	return nil
}

// openDrivers starts the NVML helper: on the simulated machine its identities
// derive from the host id and are the same after every restart.
func (h *host) openDrivers(ctx context.Context) error {
	var args []string
	if h.options.Sim != "" {
		if _, err := sim.Find(h.options.Sim); err != nil {
			return err
		}
		args = []string{"--sim", h.options.Sim, "--seed", h.id, "--faults", h.faultsFile()}
	}
	var err error
	h.nvml, err = nvml.Start(ctx, nvml.Options{Path: h.config.Programs.NVMLHelper, Args: args, Log: h.log})
	if err != nil {
		return err
	}
	h.closing(h.nvml.Close)
	return nil
}

// openIsolation opens what touches cgroups, nodes and namespaces.
func (h *host) openIsolation(context.Context) error {
	var err error
	if h.cgroups, err = cgroup.New(h.layout, h.uvmMajor); err != nil {
		return err
	}
	if h.nodes, err = node.Open(h.layout, h.uvmMajor); err != nil {
		return err
	}
	if h.pins, err = pin.Open(h.layout); err != nil {
		return err
	}
	wardens := int(h.config.UIDs.Wardens)
	h.launcher = launch.New(launch.Config{Paths: h.layout, UID: wardens, GID: wardens})
	h.closing(h.launcher.Close)
	return nil
}

func (h *host) openRuntime(context.Context) error {
	cfg := runtimeConfig(h.paths, h.config.Runtime)
	cfg.HostID, cfg.Paths, cfg.Log, cfg.LocalRegistries = h.id, h.layout, h.log, h.config.Images.LocalRegistries
	if cfg.Address == "" {
		h.supervisor = runtime.NewSupervisor(cfg)
	}
	var err error
	if h.runtime, err = runtime.Open(cfg); err != nil {
		return err
	}
	h.closing(h.runtime.Close)
	return nil
}

func (h *host) openNetwork(context.Context) error {
	var err error
	h.kernel, err = router.New(router.Config{
		HostID: h.id, NetnsDir: h.layout.Netns, Opened: filepath.Join(h.paths.Run, "forwarding"), MTU: h.config.Network.MTU, Log: h.log,
	})
	if err != nil {
		return err
	}
	h.closing(h.kernel.Close)
	h.network, err = network.New(network.Deps{HostID: h.id, Log: h.log, Kernel: h.kernel})
	return err
}

func (h *host) openRooms(context.Context) error {
	var resetter drivers.Resetter // real GPUs cannot be reset yet
	if h.options.Sim != "" {
		resetter = sim.Resetter{Faults: h.faultsFile()}
	}
	h.drivers = drivers.New(drivers.Deps{
		Resetter: resetter, AllowUnreset: allowUnreset(h.store),
		NVML: h.nvml, Ledger: h.store.Ledger(), Holders: holders{}, Servants: servants{h.nvml}, Now: time.Now, BootID: h.boot, Log: h.log,
	})
	h.guard = &guard{}
	if err := h.openTrees(); err != nil {
		return err
	}
	h.isolation = isolation.New(isolation.Deps{
		Containers: h.runtime, Tasks: h.runtime, Images: h.runtime,
		Cgroups: h.cgroups, Nodes: h.nodes, Pins: h.pins, Wardens: h.launcher,
		Auditor: audit.New(audit.Config{Paths: h.layout, UVMMajor: h.uvmMajor, Cgroups: h.cgroups, Canary: h.launcher}),
		Guard:   h.guard, Secrets: secrets{h.store}, Trees: h.trees, Exits: exits{h.store}, Now: time.Now,
	})
	return nil
}

func (h *host) openLoop(ctx context.Context) error {
	var err error
	if h.cpus, h.memory, err = capacity(os.DirFS("/")); err != nil {
		return err
	}
	protection, err := newProtection(h.config.Network, net.InterfaceAddrs)
	if err != nil {
		return err
	}
	h.shared = &shared{
		network: h.network, runtime: h.runtime, trees: h.trees, logs: h.layout.Logs, launcher: h.launcher,
		socket: filepath.Join(h.paths.Sockets, "services.sock"),
		uplink: h.config.Network.Uplink, protection: protection, upstream: h.config.Network.UpstreamDNS,
		now: time.Now, log: h.log,
		lists: []func(context.Context) ([]spec.UID, error){h.cgroups.List, h.nodes.List, h.pins.List},
	}
	h.loop = reconcile.New(reconcile.Deps{
		Store: h.store, Drivers: h.drivers, Isolation: h.isolation, Network: h.network, Shared: h.shared, Metrics: steps{h.metrics},
		Settings: reconcile.Settings{
			CPUs: h.cpus, Memory: h.memory, UIDStart: h.config.UIDs.PoolStart, UIDSize: h.config.UIDs.PoolSize,
			TransitPool: h.config.Network.TransitPool, Protected: protection.networks,
			PublishPorts: h.config.Network.Publish, NetnsDir: h.layout.Netns, Nameserver: network.ServiceAddress().String(),
			Small: smallInstance(h.config.Instances), Development: h.options.Sim != "",
		},
		Now: time.Now, Log: h.log, AtStep: crashPoint(), Listens: listens,
	})
	h.guard.loop = h.loop
	return h.loop.Recover(ctx)
}

// uvmMajor is nvidia-uvm's dynamic major now, 0 while it is not loaded.
func (h *host) uvmMajor() uint32 {
	if h.options.Sim != "" {
		return sim.MajorUVM
	}
	return charMajor("nvidia-uvm")
}
