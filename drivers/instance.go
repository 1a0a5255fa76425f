package drivers

import (
	"fmt"
	"maps"
	"slices"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// Have is what there is: the GPUs, and what the ledger says of them.
type Have struct {
	Inventory gpu.Inventory
	Entries   map[gpu.UUID]Entry
	BootID    string // of the running kernel
	// Stale says that the GPUs do not answer: Inventory holds those that instances
	// have, as they were last seen, and no other.
	Stale bool
}

// Settled is the ledger as far as it still holds: whatever was not proved in
// this boot, and every GPU never seen before, counts as Draining. It is what
// GPUs are given out by.
func (h Have) Settled() map[gpu.UUID]Entry {
	settled := maps.Clone(h.Entries)
	if settled == nil {
		settled = map[gpu.UUID]Entry{}
	}
	for _, d := range h.Inventory.Devices {
		if _, known := settled[d.UUID]; !known {
			settled[d.UUID] = Entry{GPU: d.UUID, State: Free}
		}
	}
	for id, e := range settled {
		if e.BootID != h.BootID && e.State != Quarantined {
			e.State, e.Reason = Draining, unproved
			settled[id] = e
		}
	}
	return settled
}

const unproved = "not proved clean since the host started"

// GrantArgs are the arguments of reserve and assign.
type GrantArgs struct {
	Instance spec.UID   `json:"instance"`
	Tenant   string     `json:"tenant"`
	Name     string     `json:"name"`
	GPUs     []gpu.UUID `json:"gpus"`
}

// PlanInstance gives an instance its GPUs: reserve before any node of them is
// made, assign before the task may run. GPUs it holds beyond its request are
// drained once its task is deleted. GPUs of an instance that is not wanted go
// through [PlanHandover].
//
// It fails when the request cannot be met now, see [Allocate].
func PlanInstance(r Request, have Have) (plan.Plan, error) {
	if !r.Want {
		return plan.Plan{}, nil
	}
	settled := have.Settled()
	pick, err := Allocate(have.Inventory, settled, r)
	if err != nil {
		return plan.Plan{}, err
	}
	p := r.grant(pick, settled)
	p.Steps = append(p.Steps, r.giveBack(pick, have.Inventory, settled)...)
	return p, nil
}

func (r Request) grant(pick Pick, entries map[gpu.UUID]Entry) plan.Plan {
	var reserve, assign []gpu.UUID
	for _, d := range pick.GPUs {
		state := stateOf(entries, d.UUID)
		if state == Free {
			reserve = append(reserve, d.UUID)
		}
		if state != Assigned {
			assign = append(assign, d.UUID)
		}
	}
	var p plan.Plan
	if len(reserve) > 0 {
		why := fmt.Sprintf("wants %s; %s", gpus(r.Count), pick.Why)
		p.Steps = append(p.Steps, r.step(VerbReserve, why, reserve))
	}
	if len(assign) > 0 {
		why := fmt.Sprintf("the ledger names the owner of %s before its task may run", gpus(len(assign)))
		p.Steps = append(p.Steps, r.step(VerbAssign, why, assign,
			plan.MakeID(plan.Drivers, VerbReserve, string(r.Instance)),
			plan.MakeID(plan.Isolation, "create", string(r.Instance))))
	}
	return p
}

func (r Request) step(verb, why string, ids []gpu.UUID, needs ...plan.ID) plan.Step {
	args := GrantArgs{Instance: r.Instance, Tenant: r.Tenant, Name: r.Name, GPUs: ids}
	s := plan.NewStep(plan.Drivers, verb, string(r.Instance), why, args, needs...)
	s.Title = "instance " + r.Tenant + "/" + r.Name
	return s
}

// giveBack drains what the instance holds and no longer asks for. The task that
// could open it is gone by then, when it has to go at all.
func (r Request) giveBack(pick Pick, inv gpu.Inventory, entries map[gpu.UUID]Entry) []plan.Step {
	kept := map[gpu.UUID]bool{}
	for _, d := range pick.GPUs {
		kept[d.UUID] = true
	}
	var steps []plan.Step
	for _, id := range slices.Sorted(maps.Keys(entries)) {
		e := entries[id]
		if kept[id] || !holds(e, r.Instance) {
			continue
		}
		why := fmt.Sprintf("%s/%s holds it and asks for %s", r.Tenant, r.Name, gpus(r.Count))
		s := handoverStep(VerbDrain, deviceOf(inv, id), e, why)
		s.Needs = []plan.ID{plan.MakeID(plan.Isolation, "delete-task", string(r.Instance))}
		steps = append(steps, s)
	}
	return steps
}

// PlanQuarantine takes a GPU out of service until the operator releases it. A
// GPU that a tenant has is refused as busy.
func PlanQuarantine(have Have, id gpu.UUID, reason string) (plan.Plan, error) {
	e, err := have.find(id, "quarantine")
	switch {
	case err != nil:
		return plan.Plan{}, err
	case e.State == Quarantined:
		return plan.Plan{}, nil
	case !Allowed(e.State, Quarantined):
		return plan.Plan{}, fault.New(fault.Busy, "quarantine "+string(id), "it is held by %s/%s", e.Tenant, e.Name).
			WithHint("gpuhost stop %s/%s", e.Tenant, e.Name)
	}
	return plan.Of(handoverStep(VerbQuarantine, deviceOf(have.Inventory, id), e, reason)), nil
}

// PlanRelease lets a quarantined GPU into hand-over again; it is free only once
// that has proved it clean.
func PlanRelease(have Have, id gpu.UUID, reason string) (plan.Plan, error) {
	e, err := have.find(id, "release")
	switch {
	case err != nil:
		return plan.Plan{}, err
	case e.State != Quarantined:
		return plan.Plan{}, fault.New(fault.Conflict, "release "+string(id), "it is %s, not Quarantined", e.State)
	}
	return plan.Of(handoverStep(VerbRelease, deviceOf(have.Inventory, id), e, reason)), nil
}

func (h Have) find(id gpu.UUID, verb string) (Entry, error) {
	if e, known := h.Entries[id]; known {
		return e, nil
	}
	if deviceOf(h.Inventory, id).Index < 0 {
		return Entry{}, fault.New(fault.NotFound, verb+" "+string(id), "no such GPU").WithHint("gpuhost gpu list")
	}
	return Entry{GPU: id, State: Free}, nil
}
