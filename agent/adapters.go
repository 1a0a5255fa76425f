package agent

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/reconcile"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/agent/store"
	"github.com/gpuhost/gpuhost/agent/telemetry"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/drivers/gpu"
	"github.com/gpuhost/gpuhost/drivers/nvml"
	"github.com/gpuhost/gpuhost/drivers/persistenced"
	"github.com/gpuhost/gpuhost/isolation/handover"
)

// What one room needs of another, or of the store: rooms do not import each
// other, so the wiring translates.

// secrets gives isolation the values of a tenant's secrets.
type secrets struct{ store *store.Store }

func (s secrets) Value(_ context.Context, tenant, ref string) (string, error) {
	name, key, _ := strings.Cut(ref, "/")
	o, err := s.store.Get(spec.Ref{Kind: spec.KindSecret, Tenant: tenant, Name: name})
	if err != nil {
		return "", err
	}
	value, there := o.Spec.(*spec.SecretSpec).Data[key]
	if !there {
		return "", fault.New(fault.NotFound, "read "+o.Ref().String(), "it has no key %q", key).
			WithHint("gpuhost describe secret %s --tenant %s", name, tenant)
	}
	return value, nil
}

// exits writes down how tasks end, before containerd forgets.
type exits struct{ store *store.Store }

func (e exits) RecordExit(_ context.Context, uid spec.UID, exit spec.ExitStatus) error {
	return e.store.UpdateRecord(uid, func(r *store.Record) { r.LastExit = &exit })
}

// guard gives isolation the network's proof. The loop comes after the rooms it
// is made of, so it is filled in last.
type guard struct{ loop *reconcile.Loop }

func (g *guard) Prove(ctx context.Context, uid spec.UID) error {
	controls, err := g.loop.Guarded(ctx, uid)
	if err != nil {
		return err
	}
	for _, c := range controls {
		if !c.Pass {
			return fault.New(fault.Temporary, "prove the guard", "%s %s: expected %s, found %s", c.ID, c.Name, c.Expected, c.Found)
		}
	}
	if len(controls) == 0 {
		return fault.New(fault.Internal, "prove the guard", "nothing was looked at")
	}
	return nil
}

// holders gives the drivers the scan of who has a device open.
type holders struct{}

func (holders) Holders(ctx context.Context, major, minor uint32) ([]drivers.Holder, error) {
	found, err := handover.Holders(ctx, major, minor)
	if err != nil {
		return nil, fmt.Errorf("find holders of %d:%d: %w", major, minor, err)
	}
	out := make([]drivers.Holder, len(found))
	for i, f := range found {
		out[i] = drivers.Holder{PID: f.PID, Command: f.Command, UID: f.UID}
	}
	return out, nil
}

// servants are the host's own processes that have every GPU open: the helper that
// answers now, and the driver's persistence daemon.
type servants struct{ nvml *nvml.Client }

func (s servants) Servant(ctx context.Context, h drivers.Holder) (bool, error) {
	stats, err := s.nvml.Stats(ctx)
	if err != nil {
		return false, err
	}
	if stats.PID != 0 && stats.PID == h.PID {
		return true, nil
	}
	own, err := persistenced.Installed().Is(h.PID, h.UID)
	if err != nil {
		return false, fmt.Errorf("recognise the persistence daemon: %w", err)
	}
	return own, nil
}

// allowUnreset tells the drivers what the operator decided for GPUs that cannot be
// reset between tenants.
func allowUnreset(s *store.Store) func(context.Context) (bool, error) {
	return func(context.Context) (bool, error) {
		hosts, err := s.List(spec.KindHost, "")
		if err != nil || len(hosts) == 0 {
			return false, err
		}
		return hosts[0].Spec.(*spec.HostSpec).Handover.WithoutReset == spec.HandoverAllow, nil
	}
}

// steps counts what the loop does.
type steps struct{ metrics *telemetry.Telemetry }

// ObserveRules implements reconcile.Metrics.
func (s steps) ObserveRules(took time.Duration) { s.metrics.ACLUpdate(took.Seconds()) }

func (s steps) ObserveStep(room, verb string, took time.Duration, err error) {
	s.metrics.ObserveStep(room, verb, took.Seconds(), err == nil)
}

// owners tells the metrics who has which GPU.
func owners(have drivers.Have) map[gpu.UUID]telemetry.Owner {
	out := make(map[gpu.UUID]telemetry.Owner)
	for id, e := range have.Entries {
		if e.Owner != "" {
			out[id] = telemetry.Owner{Tenant: e.Tenant, Server: e.Name}
		}
	}
	return out
}

// states is the ledger as metrics show it.
func states(have drivers.Have) map[gpu.UUID]drivers.State {
	out := make(map[gpu.UUID]drivers.State)
	for id, e := range have.Settled() {
		out[id] = e.State
	}
	return out
}
