package network

import (
	"context"
	"log/slog"
	"os"
	"sync"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// Deps are what a room is made of.
type Deps struct {
	HostID string // part of every name in the kernel
	Log    *slog.Logger
	Kernel Ports // network/router, or a fake
}

// Room is the network of one host. Its methods may be called from many lanes; one
// VPC is served by one at a time.
type Room struct {
	deps  Deps
	mu    sync.Mutex
	lanes map[spec.UID]*lane
	host  *Planner
}

// lane is what the room remembers of one VPC: compiled work, nothing that cannot
// be made again.
type lane struct {
	mu      sync.Mutex
	planner *Planner
}

// New makes the room of a host.
func New(d Deps) (*Room, error) {
	if d.HostID == "" {
		return nil, fault.New(fault.Internal, "make network room", "no host id")
	}
	return &Room{deps: d, lanes: map[spec.UID]*lane{}, host: NewPlanner(d.HostID)}, nil
}

func (r *Room) lane(vpc spec.UID) *lane {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.lanes[vpc]
	if l == nil {
		l = &lane{planner: NewPlanner(r.deps.HostID)}
		r.lanes[vpc] = l
	}
	return l
}

// List names the VPCs that have a router namespace with this host's mark.
func (r *Room) List(ctx context.Context) ([]spec.UID, error) { return r.deps.Kernel.List(ctx) }

// Observe reads a VPC's router namespace back.
func (r *Room) Observe(ctx context.Context, vpc spec.UID) (Have, error) {
	return r.deps.Kernel.Observe(ctx, vpc)
}

// Plan makes the steps that bring a VPC to what is wanted; a nil want removes it.
func (r *Room) Plan(want *VPC, uid spec.UID, have Have) (plan.Plan, error) {
	l := r.lane(uid)
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.planner.Plan(want, uid, have)
}

// PlanEndpoint makes the steps that hang an instance on its VPC's router.
func (r *Room) PlanEndpoint(vpc VPC, e Endpoint, have Have) plan.Plan {
	return r.host.PlanEndpoint(vpc, e, have)
}

// PlanDetach makes the step that takes an instance off its VPC's router.
func (r *Room) PlanDetach(vpc spec.UID, e Endpoint, have Have) plan.Plan {
	return r.host.PlanDetach(vpc, e, have)
}

// ObserveHost reads the host's own table back.
func (r *Room) ObserveHost(ctx context.Context) (HostHave, error) {
	return r.deps.Kernel.ObserveHost(ctx)
}

// PlanHost makes the steps that bring the host's own namespace to what is wanted;
// a nil want removes everything.
func (r *Room) PlanHost(want *HostWant, have HostHave) (plan.Plan, error) {
	return r.host.PlanHost(want, have)
}

// WatchHost calls changed after every change of the host's nftables, by anybody,
// until ctx ends. The host's namespace is not ours alone: whoever flushes its
// rules takes ours with them, and changed has the host's lane look and repair.
func (r *Room) WatchHost(ctx context.Context, changed func()) error {
	return r.deps.Kernel.WatchHost(ctx, changed)
}

// Apply makes one change. Applied twice it is as applied once.
func (r *Room) Apply(ctx context.Context, step plan.Step, _ plan.Report) error {
	err := r.apply(ctx, step)
	if err != nil {
		return fault.Wrap(fault.Internal, step.Verb+" "+step.Title, err)
	}
	return nil
}

func (r *Room) apply(ctx context.Context, step plan.Step) error {
	vpc := spec.UID(step.Object)
	switch step.Verb {
	case VerbOpen:
		args, err := plan.ArgsAs[OpenArgs](step)
		if err != nil {
			return err
		}
		return r.deps.Kernel.Open(ctx, vpc, args.Transit)
	case VerbLoad:
		args, err := plan.ArgsAs[LoadArgs](step)
		if err != nil {
			return err
		}
		return r.deps.Kernel.Load(ctx, vpc, args)
	case VerbClose:
		return r.close(ctx, vpc)
	case VerbLoadHost, VerbPublish:
		args, err := plan.ArgsAs[HostArgs](step)
		if err != nil {
			return err
		}
		return r.deps.Kernel.LoadHost(ctx, args)
	case VerbForward:
		args, err := plan.ArgsAs[ForwardArgs](step)
		if err != nil {
			return err
		}
		return r.deps.Kernel.Forward(ctx, args)
	}
	return r.applyEndpoint(ctx, step)
}

func (r *Room) applyEndpoint(ctx context.Context, step plan.Step) error {
	args, err := plan.ArgsAs[EndpointArgs](step)
	if err != nil {
		return err
	}
	switch step.Verb {
	case VerbAttach:
		return r.deps.Kernel.Attach(ctx, args.VPC, args.Endpoint)
	case VerbDetach:
		return r.deps.Kernel.Detach(ctx, args.VPC, args.Endpoint)
	case VerbProveGuard:
		return r.proveGuard(ctx, args)
	}
	return fault.New(fault.Internal, "apply "+string(step.ID), "the network has no such verb")
}

func (r *Room) close(ctx context.Context, vpc spec.UID) error {
	if err := r.deps.Kernel.Remove(ctx, vpc); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.lanes, vpc)
	return nil
}

// Counters reads what each instance of a VPC sent and received. The reading of an
// instance ends with the load that no longer wants it: read before.
func (r *Room) Counters(ctx context.Context, vpc spec.UID) (map[spec.UID]Traffic, error) {
	counters, err := r.deps.Kernel.Counters(ctx, vpc)
	if err != nil {
		return nil, err
	}
	all := map[spec.UID]Traffic{}
	for name := range counters {
		if uid, ok := instanceOfCounter(name); ok {
			all[uid] = trafficOf(uid, counters)
		}
	}
	return all, nil
}

// ServiceSockets opens the sockets of the VPC's resolver inside its router
// namespace: 169.254.169.253, port 53, UDP and TCP. The caller closes them.
func (r *Room) ServiceSockets(ctx context.Context, vpc spec.UID) (udp, tcp *os.File, err error) {
	return r.deps.Kernel.ServiceSockets(ctx, vpc)
}
