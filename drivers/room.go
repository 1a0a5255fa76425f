package drivers

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// Deps is what the room needs of the world.
type Deps struct {
	NVML     NVML
	Ledger   Ledger
	Holders  Holders
	Servants Servants // nil: the host has none
	Resetter Resetter // nil: its GPUs cannot be reset
	// AllowUnreset is Host.spec.handover.withoutReset: whether a GPU that cannot be
	// reset may go to the next tenant. Nil is no.
	AllowUnreset func(ctx context.Context) (bool, error)
	Now          func() time.Time
	BootID       string // /proc/sys/kernel/random/boot_id
	Log          *slog.Logger
}

// Room observes GPUs and their ledger, and applies steps of [PlanInstance] and
// [PlanHandover]. Any number may work on one ledger: all it remembers is what each
// GPU was when it was last seen.
type Room struct {
	deps Deps

	inventories inventories

	mu   sync.Mutex
	seen map[gpu.UUID]gpu.Device
	last gpu.Inventory // without its devices
}

// New makes the room. A nil Log is silence, a nil Now is the clock.
func New(deps Deps) *Room {
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Servants == nil {
		deps.Servants = nobody{}
	}
	if deps.Resetter == nil {
		deps.Resetter = noReset{}
	}
	if deps.AllowUnreset == nil {
		deps.AllowUnreset = func(context.Context) (bool, error) { return false, nil }
	}
	return &Room{deps: deps, inventories: inventories{turn: make(chan struct{}, 1)}, seen: make(map[gpu.UUID]gpu.Device)}
}

// nobody is a host without servants.
type nobody struct{}

func (nobody) Servant(context.Context, Holder) (bool, error) { return false, nil }

// Forget has the next Observe ask the GPUs anew: something happened to one.
func (r *Room) Forget() { r.inventories.forget() }

// Observe reads inventory and ledger, the inventory as it was some seconds ago at
// most; it changes nothing. A host without a
// driver has no GPUs, unless the ledger knows of some: then they are out of sight,
// not gone, and that is an error.
func (r *Room) Observe(ctx context.Context) (Have, error) {
	entries, err := r.deps.Ledger.Entries(ctx)
	if err != nil {
		return Have{}, fault.Wrap(fault.Internal, "read GPU ledger", err)
	}
	inventory, stale, err := r.inventory(ctx, entries)
	if err != nil && !(fault.Is(err, fault.Unsupported) && len(entries) == 0) {
		return Have{}, fault.Wrap(fault.Temporary, "read GPU inventory", err)
	}
	return Have{Inventory: inventory, Entries: entries, BootID: r.deps.BootID, Stale: stale}, nil
}

// inventory reads the GPUs. One that an instance has in this boot and that does
// not answer is reported as it was last seen: a helper that hangs must not take a
// GPU from a tenant who runs. Nobody new is given one that does not answer.
func (r *Room) inventory(ctx context.Context, entries map[gpu.UUID]Entry) (found gpu.Inventory, stale bool, err error) {
	found, err = r.inventories.get(ctx, r.deps.Now, r.deps.NVML.Inventory)
	r.mu.Lock()
	defer r.mu.Unlock()
	found.Devices = slices.Clone(found.Devices) // shared with others who read at this time
	if err != nil && len(r.seen) == 0 {
		return gpu.Inventory{}, false, err
	}
	stale = err != nil
	answers := make(map[gpu.UUID]bool, len(found.Devices))
	for _, d := range found.Devices {
		answers[d.UUID], r.seen[d.UUID] = true, d
	}
	if !stale {
		r.last = gpu.Inventory{DriverVersion: found.DriverVersion, CUDAVersion: found.CUDAVersion, Links: found.Links}
	} else {
		r.deps.Log.Warn("the GPUs do not answer; those in use are taken as they were", "error", err)
		found = r.last
	}
	for id, e := range entries {
		mine := e.BootID == r.deps.BootID && (e.State == Assigned || e.State == Reserved)
		if d, seen := r.seen[id]; seen && mine && !answers[id] {
			found.Devices = append(found.Devices, d)
		}
	}
	slices.SortFunc(found.Devices, func(x, y gpu.Device) int { return cmp.Compare(x.Index, y.Index) })
	return found, stale, nil
}

// Apply makes one change. Applied twice it is as if applied once.
func (r *Room) Apply(ctx context.Context, s plan.Step, _ plan.Report) error {
	var err error
	switch s.Verb {
	case VerbReserve, VerbAssign:
		err = r.applyGrant(ctx, s)
	case VerbDrain, VerbScrub, VerbReset, VerbVerify, VerbFree, VerbQuarantine, VerbRelease:
		err = r.applyHandover(ctx, s)
		r.Forget() // a reset may change what the GPU says of itself
	default:
		return fault.New(fault.Internal, string(s.ID), "drivers have no verb %q", s.Verb)
	}
	return fault.Wrap(fault.Internal, s.Verb+" "+s.Title, err)
}

func (r *Room) applyGrant(ctx context.Context, s plan.Step) error {
	args, err := plan.ArgsAs[GrantArgs](s)
	if err != nil {
		return err
	}
	entries, err := r.deps.Ledger.Entries(ctx)
	if err != nil {
		return err
	}
	from, to := Free, Reserved
	if s.Verb == VerbAssign {
		from, to = Reserved, Assigned
	}
	var changes []Change
	for _, id := range args.GPUs {
		e := entries[id]
		if holds(e, args.Instance) && (e.State == to || e.State == Assigned) {
			continue // done already, or further
		}
		if err := r.grantable(id, e, from, args.Instance); err != nil {
			return err
		}
		changes = append(changes, Change{From: from, To: r.granted(e, to, args, s.Why)})
	}
	if len(changes) == 0 {
		return nil
	}
	return r.deps.Ledger.Transition(ctx, changes)
}

// grantable refuses a GPU that another start took since the plan was made, which
// is a conflict: plan again, another GPU may be free. One that this boot has not
// proved is for the hand-over first. The owner is not named: a tenant reads this.
func (r *Room) grantable(id gpu.UUID, e Entry, from State, instance spec.UID) error {
	mine := from == Free || e.Owner == instance
	if e.State == from && e.BootID == r.deps.BootID && mine {
		return nil
	}
	if e.Owner != "" && e.Owner != instance {
		return fault.New(fault.Conflict, string(id), "another instance has it by now")
	}
	return fault.New(fault.Temporary, string(id), "it is %s by now", describe(e))
}

func describe(e Entry) string {
	switch {
	case e.State == "":
		return "not proved clean"
	case e.Owner == "":
		return string(e.State)
	default:
		return string(e.State) + " for " + e.Tenant + "/" + e.Name
	}
}

func (r *Room) granted(e Entry, to State, args GrantArgs, why string) Entry {
	e.State, e.Reason, e.Since = to, why, r.deps.Now().UTC()
	e.Owner, e.Tenant, e.Name = args.Instance, args.Tenant, args.Name
	return e
}
