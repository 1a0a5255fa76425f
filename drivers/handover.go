package drivers

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// The verbs. Reserve and assign are done to an instance, the others to a GPU.
const (
	VerbReserve    = "reserve"
	VerbAssign     = "assign"
	VerbDrain      = "drain"
	VerbScrub      = "scrub"
	VerbReset      = "reset"
	VerbVerify     = "verify"
	VerbFree       = "free"
	VerbQuarantine = "quarantine"
	VerbRelease    = "release"
)

// How long a hand-over is tried before the GPU is quarantined. A process that
// holds a GPU may still be ending, and a GPU that hangs may come back, so both
// get tries and time (more of it than package nvml leaves a hung GPU out); a GPU
// that is not what it was gets one retry.
const (
	HeldTries    = 5
	HeldPatience = 2 * time.Minute
	FailedTries  = 2
)

// HandoverArgs are the arguments of the verbs done to a GPU. GPU.Index is -1
// when the GPU is in the ledger but not in the machine.
type HandoverArgs struct {
	GPU    gpu.Device `json:"gpu"`
	From   State      `json:"from"`            // the state the plan was made from
	Owner  spec.UID   `json:"owner,omitempty"` // the owner the plan was made from
	Reason string     `json:"reason"`
}

// PlanHandover takes every GPU that has to be proved clean through drain,
// scrub, verify and free, and those that could not be proved into quarantine. One
// that a tenant had is reset on the way, once nobody has it open.
// present are the instances that may keep their GPUs: those wanted running, and
// those whose task is not deleted yet. now is compared with the time of the
// first failed proof.
//
// GPUs that failed before come last: a failed step ends its plan, and one GPU
// that is held must not keep the others from their turn.
func PlanHandover(have Have, present map[spec.UID]bool, now time.Time) plan.Plan {
	var p plan.Plan
	if have.Stale {
		return p // nothing can be proved now, and nothing is to be quarantined for it
	}
	for _, d := range have.known() {
		e, there := have.Entries[d.UUID]
		if !there {
			e = Entry{GPU: d.UUID, State: Free}
		}
		if why := needsHandover(e, have.BootID, present); why != "" {
			p.Steps = append(p.Steps, handoverSteps(d, e, why, e.BootID == have.BootID && e.hopeless(now))...)
		}
	}
	return p
}

// known lists the GPUs of the machine and of the ledger, those that failed least
// first, then by address; what is only in the ledger has none.
func (h Have) known() []gpu.Device {
	all := slices.Clone(h.Inventory.Devices)
	for id := range maps.Keys(h.Entries) {
		if d := deviceOf(h.Inventory, id); d.Index < 0 {
			all = append(all, d)
		}
	}
	slices.SortFunc(all, func(a, b gpu.Device) int {
		return cmp.Or(
			cmp.Compare(h.Entries[a.UUID].Attempts.total(), h.Entries[b.UUID].Attempts.total()),
			cmp.Compare(a.PCI, b.PCI), cmp.Compare(a.UUID, b.UUID))
	})
	return all
}

func deviceOf(inv gpu.Inventory, id gpu.UUID) gpu.Device {
	i := slices.IndexFunc(inv.Devices, func(d gpu.Device) bool { return d.UUID == id })
	if i < 0 {
		return gpu.Device{UUID: id, Index: -1}
	}
	return inv.Devices[i]
}

func needsHandover(e Entry, bootID string, present map[spec.UID]bool) string {
	switch {
	case e.State == Quarantined:
		return ""
	case e.BootID != bootID:
		return unproved // whatever the entry says of an earlier boot
	case inHandover(e.State):
		return "its hand-over is not finished"
	case e.State != Free && !present[e.Owner]:
		return fmt.Sprintf("%s/%s gave it back", e.Tenant, e.Name)
	default:
		return ""
	}
}

func handoverSteps(d gpu.Device, e Entry, why string, hopeless bool) []plan.Step {
	if hopeless {
		return []plan.Step{handoverStep(VerbQuarantine, d, e, e.Reason)}
	}
	if e.Reason != "" && inHandover(e.State) {
		why += ": " + e.Reason
	}
	steps := []plan.Step{
		handoverStep(VerbDrain, d, e, why),
		handoverStep(VerbScrub, d, e, why+"; no process may have it open when it changes hands"),
	}
	if e.Owner != "" {
		steps = append(steps, handoverStep(VerbReset, d, e, "nothing of "+e.Tenant+"/"+e.Name+" may be left in it"))
	}
	steps = append(steps,
		handoverStep(VerbVerify, d, e, "it must be the GPU it was, with its memory empty"),
		handoverStep(VerbFree, d, e, "drained, unheld and verified"),
	)
	for i := range steps[1:] {
		steps[i+1].Needs = []plan.ID{steps[i].ID}
	}
	if e.State == Draining {
		return steps[1:]
	}
	return steps
}

// hopeless says whether trying again is over.
func (e Entry) hopeless(now time.Time) bool {
	if !inHandover(e.State) {
		return false
	}
	patient := now.Sub(e.Attempts.Since) < HeldPatience
	return e.Attempts.Failed >= FailedTries || e.Attempts.Held >= HeldTries && !patient
}

func handoverStep(verb string, d gpu.Device, e Entry, why string) plan.Step {
	args := HandoverArgs{GPU: d, From: e.State, Owner: e.Owner, Reason: why}
	s := plan.NewStep(plan.Drivers, verb, string(d.UUID), why, args)
	s.Title = "GPU " + string(d.UUID)
	if e.Owner != "" {
		s.Title += " (" + e.Tenant + "/" + e.Name + ")"
	}
	return s
}
