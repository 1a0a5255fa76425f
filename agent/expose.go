package agent

import (
	"context"
	"maps"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/health"
	"github.com/gpuhost/gpuhost/agent/reconcile"
	"github.com/gpuhost/gpuhost/agent/service"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// openAPI takes the socket and puts the services behind the routes. It is the
// last part: whoever connects finds everything there.
func (h *host) openAPI(context.Context) error {
	var err error
	if h.listener, err = api.Listen(h.paths.Socket()); err != nil {
		return err
	}
	h.closing(func() error { _ = h.listener.Close(); return nil }) // Serve closed it already
	tenants, err := mappedTenants(h.config.Tenants.UIDs)
	if err != nil {
		return err
	}
	h.server = api.NewServer(api.Options{
		Peers:   api.LookupPeers(h.config.API.Group, h.config.API.ViewGroup, tenants),
		Version: h.version(), Metrics: h.metrics.Handler(), Ready: h.ready, Log: h.log,
	}, h.backend())
	return nil
}

// version is what runs: the number the linker wrote, and what Go knows of the
// build.
func (h *host) version() api.Version {
	v := api.Version{Version: h.options.Version, Go: runtime.Version()}
	info, known := debug.ReadBuildInfo()
	if !known {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v.Commit = s.Value
		}
	}
	return v
}

func mappedTenants(settings map[string]string) (map[uint32]string, error) {
	out := make(map[uint32]string, len(settings))
	for text, tenant := range settings {
		uid, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, "read tenants.uids", err)
		}
		out[uint32(uid)] = tenant
	}
	return out, nil
}

func (h *host) backend() api.Backend {
	objects := service.Objects{Loop: h.loop, Store: h.store}
	return api.Backend{
		Objects: objects, Planner: objects,
		Instances: service.Instances{
			Loop: h.loop, Store: h.store, Runtime: h.runtime, Launcher: h.launcher, Layout: h.layout, Log: h.log,
		},
		Images:  service.Images{Loop: h.loop, Store: h.store, Runtime: h.runtime, Secrets: secrets{h.store}},
		History: service.History{Loop: h.loop, Store: h.store},
		Host:    h.hostService(),
	}
}

func (h *host) hostService() service.Host {
	return service.Host{
		Loop: h.loop, Store: h.store, Settings: h.settings, ReadFiles: h.reload, Simulator: h.simulator(),
		Samples: h.samples.get, Controls: h.readControls, Parts: h.parts, Checks: h.doctor,
		Facts: service.HostFacts{
			HostID: h.id, Version: h.options.Version, Sim: h.options.Sim, Started: h.started,
			CPUs: h.cpus, Memory: h.memory,
		},
	}
}

// ready says what the agent still waits for: a part beside it, or a lane that does
// not get done what it should. A task's problem (bad settings, a GPU that hangs, a
// taken port) is in status and doctor and no reason to take the host out of
// service: what was in force is, and mending it disturbs nobody. Whoever rolls out
// settings learns of a bad file from the exit code of gpuhost config reload.
func (h *host) ready(ctx context.Context) error {
	for _, p := range h.parts(ctx) {
		if !p.Ready {
			return fault.New(fault.Temporary, "wait for "+p.Name, "%s", p.Message)
		}
	}
	return blocking(h.loop.Problems())
}

// blocking is the first problem that keeps what is wanted from being in force.
func blocking(found []reconcile.Problem) error {
	for _, p := range found {
		if !p.Task {
			return fault.New(fault.Temporary, "wait for "+p.Name, "%w", p.Err)
		}
	}
	return nil
}

// problems says what the agent itself fails at.
func (h *host) problems() map[string]error {
	out := make(map[string]error)
	for _, p := range h.loop.Problems() {
		out[p.Name] = p.Err
	}
	return out
}

// partPatience bounds how long a part may take to say how it is.
const partPatience = time.Second

// parts says how the processes beside the agent are.
func (h *host) parts(ctx context.Context) []api.PartStatus {
	ctx, cancel := context.WithTimeout(ctx, partPatience)
	defer cancel()
	part := func(name string, err error) api.PartStatus {
		if err != nil {
			return api.PartStatus{Name: name, Message: err.Error()}
		}
		return api.PartStatus{Name: name, Ready: true}
	}
	_, gpus := h.nvml.Stats(ctx)
	return []api.PartStatus{part("containerd", h.runtime.Ready(ctx)), part("nvml-helper", gpus)}
}

func (h *host) doctor(ctx context.Context, only []string) ([]api.CheckResult, error) {
	found, err := health.Run(ctx, health.Facts{
		CgroupMount: cgroupMount, RuntimeDir: h.config.Runtime.Dir, Lib: h.paths.Lib, Sim: h.options.Sim != "",
		ForeignDrops: h.kernel.ForeignDrops, Protected: h.config.Network.Protected, Problems: h.problems,
		Parts: func(ctx context.Context) map[string]error {
			out := make(map[string]error)
			for _, p := range h.parts(ctx) {
				if out[p.Name] = nil; !p.Ready {
					out[p.Name] = fault.New(fault.Temporary, "reach "+p.Name, "%s", p.Message)
				}
			}
			return out
		},
	}, only)
	if err != nil {
		return nil, err
	}
	out := make([]api.CheckResult, len(found))
	for i, r := range found {
		out[i] = api.CheckResult{Name: r.Name, State: api.CheckState(r.State), Message: r.Message, Hint: r.Hint}
	}
	return out, nil
}

// samples is the last measurement of each GPU.
type samples struct {
	slot chan map[gpu.UUID]gpu.Sample // holds the one value while nobody uses it
}

func newSamples() samples {
	s := samples{slot: make(chan map[gpu.UUID]gpu.Sample, 1)}
	s.slot <- nil
	return s
}

func (s samples) get() map[gpu.UUID]gpu.Sample {
	all := <-s.slot
	defer func() { s.slot <- all }()
	return maps.Clone(all)
}

func (s samples) set(all []gpu.Sample) {
	next := make(map[gpu.UUID]gpu.Sample, len(all))
	for _, one := range all {
		next[one.UUID] = one
	}
	<-s.slot
	s.slot <- next
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return name
}
