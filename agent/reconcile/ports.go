package reconcile

import (
	"context"
	"net/netip"
	"time"

	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/network"
)

// Drivers is the room of GPUs.
type Drivers interface {
	Observe(ctx context.Context) (drivers.Have, error)
	Apply(ctx context.Context, step plan.Step, report plan.Report) error
}

// Isolation is the room of containers.
type Isolation interface {
	Observe(ctx context.Context, lease isolation.Lease) (isolation.Have, error)
	Apply(ctx context.Context, step plan.Step, report plan.Report) error
}

// Network is the room of addresses, links and rules. Its plans are pure; the room
// only remembers what it compiled.
type Network interface {
	EndpointPlanner
	Plan(want *network.VPC, uid spec.UID, have network.Have) (plan.Plan, error)
	Observe(ctx context.Context, vpc spec.UID) (network.Have, error)
	Apply(ctx context.Context, step plan.Step, report plan.Report) error
	// Prove reads an instance's network controls back from the kernel.
	Prove(ctx context.Context, vpc network.VPC, instance spec.UID) ([]spec.Control, error)
	// Counters reads what each instance of a VPC sent and received since its
	// counters were made. A VPC that is not there has none.
	Counters(ctx context.Context, vpc spec.UID) (map[spec.UID]network.Traffic, error)
}

// EndpointPlanner plans the link of one instance.
type EndpointPlanner interface {
	PlanEndpoint(vpc network.VPC, e network.Endpoint, have network.Have) plan.Plan
	PlanDetach(vpc spec.UID, e network.Endpoint, have network.Have) plan.Plan
}

// Shared is what all instances have in common on the host and no room's planner
// owns: the host's own table, the DNS tables and leftovers. What is told of VPCs is
// told of all of them, in order of uid, and is idempotent.
type Shared interface {
	// Guard brings in force what keeps tenants from the host, its networks and each
	// other. No instance starts before.
	Guard(ctx context.Context, vpcs []network.VPC) error
	// Publish lets tenants out and their published ports in, or with no VPC leaves
	// the host as it was found. It comes after Guard.
	Publish(ctx context.Context, vpcs []network.VPC) error
	// Name tells the resolver what instances are called.
	Name(ctx context.Context, vpcs []network.VPC) error
	// Prove reads back from the kernel what Guard brought in force.
	Prove(ctx context.Context, vpcs []network.VPC) (spec.Control, error)
	// Marked lists everything on the host that carries the agent's mark.
	Marked(ctx context.Context) (Marked, error)
	// DropLogs removes old logs of instances that are not stored.
	DropLogs(ctx context.Context, stored func(spec.UID) bool) error
	// RemoveTenant takes away what a tenant without instances still has on the
	// host: images, its copy of the driver tree.
	RemoveTenant(ctx context.Context, tenant string) error
}

// Marked is what carries the agent's mark on the host, stored or not.
type Marked struct {
	VPCs      []spec.UID
	Instances map[spec.UID]string // to the tenant, "" where only the kernel knows of it
}

// Metrics counts what the loop does.
type Metrics interface {
	ObserveStep(room, verb string, took time.Duration, err error)
	// ObserveRules counts changed rules that are in force, since their lane looked.
	ObserveRules(took time.Duration)
}

// Settings are the operator's choices that the loop needs.
type Settings struct {
	HostID            string                // part of every mark
	CPUs              spec.CPU              // of the machine
	Memory            spec.Bytes            // of the machine
	UIDStart, UIDSize uint32                // the pool of tenants' ranges
	TransitPool       netip.Prefix          // the pool of VPCs' transit links
	Protected         func() []netip.Prefix // may change; all lanes are triggered then
	PublishPorts      []spec.PortRange      // of the host, for tenants
	NetnsDir          string                // where isolation pins namespaces
	Nameserver        string                // the resolver's address inside a VPC
	// Small are the resources of an instance that names none and holds no GPU.
	Small spec.ResourcesSpec
	// Development lets instances run without the limits that the machine's cgroup
	// controllers cannot set.
	Development bool
}
