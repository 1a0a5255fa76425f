package agent

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/gpuhost/gpuhost/agent/config"
	"github.com/gpuhost/gpuhost/agent/reconcile"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/agent/telemetry"
	"github.com/gpuhost/gpuhost/isolation/runtime"
	"github.com/gpuhost/gpuhost/network"
)

// The agent's own clock for measurements; a scrape renders what the last beat found.
// A GPU that hangs is noticed at a beat, 2 s after it was asked, and is to be told
// within 10 s.
const (
	sampleInterval  = 5 * time.Second  // of GPUs
	trafficInterval = 10 * time.Second // of instances
)

// watchExits wakes an instance's lane the moment its task ends.
func (h *host) watchExits(ctx context.Context) error {
	for exit := range h.runtime.Exits(ctx) {
		h.log.Info("task ended", "uid", string(exit.UID), "tenant", exit.Tenant, "code", exit.Status.Code, "unknown", exit.Status.Unknown)
		h.loop.TriggerInstance(exit.UID)
	}
	return nil
}

// watchRuntime waits for containerd, at the start and whenever it was away, and
// then lets every lane look again: what ended meanwhile shows only then.
func (h *host) watchRuntime(ctx context.Context) error {
	ready, away, hungUp := false, false, false
	return every(ctx, time.Second, func(ctx context.Context) {
		err := h.runtime.Ready(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil && ready:
			ready, away = false, true
			h.log.Warn("containerd is away; tenants run on", "error", err)
		case err != nil:
			away = true
		case err == nil && !ready:
			ready = true
			h.noteVersions(ctx)
			if !hungUp {
				hungUp = true
				h.hangUp(ctx)
			}
			if away {
				h.loop.TriggerAll() // else the loop's own first look has seen it
			}
		}
	})
}

// noteVersions checks the runtime's programs once they can be asked.
func (h *host) noteVersions(ctx context.Context) {
	versions, err := runtime.CheckVersions(ctx, h.config.Runtime.Dir)
	if err != nil {
		h.log.Error("check the runtime", "error", err)
		return
	}
	h.log.Info("runtime is ready", "containerd", versions.Containerd, "runc", versions.Runc)
}

// meter counts instances and their traffic for the next scrapes.
func (h *host) meter(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, trafficInterval)
	defer cancel()
	h.metrics.SetServers(h.phases())
	traffic, err := h.traffic(ctx)
	if err != nil {
		h.log.Warn("meter the instances", "error", err) // what was told last stays
		return
	}
	h.metrics.SetTraffic(traffic)
}

// sample measures the GPUs for the next scrapes, and tells of those that do not
// answer.
func (h *host) sample(ctx context.Context) {
	defer func() { h.metrics.SetProblems(slices.Sorted(maps.Keys(h.problems()))) }()
	ctx, cancel := context.WithTimeout(ctx, sampleInterval)
	defer cancel()
	have, err := h.drivers.Observe(ctx)
	if err != nil {
		h.log.Warn("read the GPUs", "error", err)
		return
	}
	samples, err := h.nvml.Samples(ctx)
	if err != nil {
		h.log.Warn("measure the GPUs", "error", err)
	}
	h.samples.set(samples)
	h.metrics.SetGPUs(have.Inventory, samples, owners(have))
	h.metrics.SetLedger(states(have))
	if stats, err := h.nvml.Stats(ctx); err == nil {
		for id, err := range h.silent.look(have.Inventory.Devices, samples, stats.HungGPUs) {
			h.loop.NoteProblem(string(id), err)
		}
	}
}

// phases counts the instances in each phase.
func (h *host) phases() map[spec.Phase]int {
	counts := make(map[spec.Phase]int)
	instances, err := h.store.List(spec.KindInstance, "")
	if err != nil {
		return counts
	}
	for _, o := range instances {
		if o.Status != nil {
			counts[o.Status.Phase]++
		}
	}
	return counts
}

// traffic is what every instance sent and received so far.
func (h *host) traffic(ctx context.Context) ([]telemetry.Traffic, error) {
	totals, err := h.loop.Traffic(ctx)
	if err != nil {
		return nil, err
	}
	var out []telemetry.Traffic
	for uid, t := range totals {
		if o, err := h.store.GetUID(uid); err == nil {
			out = append(out, trafficOf(o, t)...)
		}
	}
	return out, nil
}

func trafficOf(o *spec.Object, t network.Traffic) []telemetry.Traffic {
	row := func(class, direction string, c network.Count) telemetry.Traffic {
		return telemetry.Traffic{
			Tenant: o.Metadata.Tenant, Server: o.Metadata.Name, Class: class, Direction: direction, Bytes: c.Bytes, Packets: c.Packets,
		}
	}
	return []telemetry.Traffic{
		row("intranet", "ingress", t.IntranetIngress), row("intranet", "egress", t.IntranetEgress),
		row("internet", "ingress", t.InternetIngress), row("internet", "egress", t.InternetEgress),
	}
}

// audit proves every running instance's isolation from kernel state. What fails
// is told; by policy the instance is fenced. One that cannot be looked at keeps
// nobody else from being looked at.
func (h *host) audit(ctx context.Context) error {
	return h.loop.AuditRounds(ctx, func() time.Duration { return h.settings().Audit.Interval }, h.readControls, func(o *spec.Object, controls []spec.Control, err error) {
		if err != nil {
			h.log.Warn("audit", "object", o.Ref().String(), "error", err)
		}
		h.judge(ctx, o, controls)
	})
}

// readControls reads the isolation room's controls; the loop adds the network's.
func (h *host) readControls(ctx context.Context, a reconcile.Audited) ([]spec.Control, error) {
	return h.isolation.Audit(ctx, a.Lease)
}

func (h *host) judge(ctx context.Context, o *spec.Object, controls []spec.Control) {
	for _, c := range controls {
		if c.Unknown {
			h.log.Error("isolation control could not be looked at", "object", o.Ref().String(), "control", c.ID, "name", c.Name, "found", c.Found)
		}
		if c.Pass || c.Unknown {
			continue
		}
		h.metrics.AuditFailure(c.ID)
		h.log.Error("isolation control failed", "object", o.Ref().String(), "control", c.ID, "name", c.Name, "expected", c.Expected, "found", c.Found)
		if err := h.loop.Suspect(ctx, o, c, h.settings().Audit.Policy == config.PolicyFence); err != nil {
			h.log.Error("fence", "object", o.Ref().String(), "error", err)
		}
	}
}
