package drivers_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/sim"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/drivers/drivertest"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

const boot = "boot-2"

func noon() time.Time { return time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC) }

func inventoryOf(t interface{ Fatal(...any) }, name string) gpu.Inventory {
	s, err := sim.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	return s.Inventory("test")
}

func room(h *drivertest.Host) *drivers.Room {
	return drivers.New(drivers.Deps{NVML: h, Ledger: h, Holders: h, Servants: h, Resetter: h, Now: noon, BootID: boot})
}

// settle plans and applies hand-over until nothing is left to do.
func settle(t *rapid.T, h *drivertest.Host, present map[spec.UID]bool) {
	for range 4 {
		have := observe(t, h)
		p := drivers.PlanHandover(have, present, noon())
		if p.Empty() {
			return
		}
		_ = apply(h, ordered(t, p)) // a failure is what the next plan is for
	}
	t.Fatalf("not converged: %s", drivers.PlanHandover(observe(t, h), present, noon()).Text())
}

func observe(t *rapid.T, h *drivertest.Host) drivers.Have {
	fail := h.Fail
	h.Fail = nil
	defer func() { h.Fail = fail }()
	have, err := room(h).Observe(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return have
}

func ordered(t *rapid.T, p plan.Plan) plan.Plan {
	o, err := p.Ordered()
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func apply(h *drivertest.Host, p plan.Plan) error {
	for _, s := range p.Steps {
		if err := room(h).Apply(context.Background(), s, nil); err != nil {
			return err
		}
	}
	return nil
}

// randomHost has every GPU in a random state, of this boot or the last, of an
// instance that is present or not.
func randomHost(t *rapid.T) (*drivertest.Host, map[spec.UID]bool) {
	name := rapid.SampledFrom([]string{"dgx-h100", "nvlink-pairs"}).Draw(t, "host")
	h := drivertest.NewHost(inventoryOf(t, name))
	for _, d := range h.GPUs.Devices {
		state := rapid.SampledFrom(append(drivers.States(), "")).Draw(t, "state")
		if state == "" {
			continue // never seen before
		}
		e := drivers.Entry{GPU: d.UUID, State: state, BootID: rapid.SampledFrom([]string{"boot-1", boot}).Draw(t, "boot"), Since: noon()}
		if state != drivers.Free {
			e.Tenant, e.Name = "acme", rapid.SampledFrom([]string{"a", "b", "gone"}).Draw(t, "owner")
			e.Owner = spec.UID("uid-" + e.Name)
		}
		h.Ledger[d.UUID] = e
	}
	return h, map[spec.UID]bool{"uid-a": true, "uid-b": true}
}

func TestHandoverConvergesAndIsMinimal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, present := randomHost(t)
		settle(t, h, present)
		for id, e := range h.Ledger {
			kept := (e.State == drivers.Assigned || e.State == drivers.Reserved) && present[e.Owner]
			if e.State != drivers.Free && e.State != drivers.Quarantined && !kept {
				t.Errorf("%s ended %s", id, e.State)
			}
			if e.State == drivers.Free && (e.Owner != "" || e.BootID != boot) {
				t.Errorf("%s is free but says %+v", id, e)
			}
		}
	})
}

func TestHandoverIsIdempotent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, present := randomHost(t)
		for _, s := range ordered(t, drivers.PlanHandover(observe(t, h), present, noon())).Steps {
			if err := room(h).Apply(context.Background(), s, nil); err != nil {
				t.Fatal(err)
			}
			once := maps.Clone(h.Ledger)
			if err := room(h).Apply(context.Background(), s, nil); err != nil {
				t.Fatalf("again: %v", err)
			}
			if diff := cmp.Diff(once, h.Ledger); diff != "" {
				t.Fatalf("%s twice is not once:\n%s", s.ID, diff)
			}
		}
	})
}

// TestHandoverSurvivesCrashes breaks every operation, before or after it took
// effect, and begins again as a new agent would.
func TestHandoverSurvivesCrashes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, present := randomHost(t)
		crash := rapid.IntRange(0, 60)
		for range 5 {
			left := crash.Draw(t, "operations until the crash")
			h.Fail = func(string) error {
				if left--; left < 0 {
					return errors.New("crashed")
				}
				return nil
			}
			_ = apply(h, ordered(t, drivers.PlanHandover(observe(t, h), present, noon())))
		}
		h.Fail = nil
		settle(t, h, present)
	})
}

// TestNeverFreeWhileHeld lets processes hold GPUs through everything that may
// happen, and looks at each write to the ledger.
func TestNeverFreeWhileHeld(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, present := randomHost(t)
		held := map[gpu.UUID]bool{}
		for _, d := range h.GPUs.Devices {
			switch rapid.IntRange(0, 5).Draw(t, "what is wrong") {
			case 0:
				h.Open[d.Minor] = []drivers.Holder{{PID: 7, Command: "python", UID: 1000}}
			case 1:
				h.Busy[d.UUID] = 1
			case 2:
				h.Used[d.UUID] = rapid.Uint64Range(64<<20, d.MemoryBytes).Draw(t, "bytes in use")
			case 3:
				h.Unknown[d.UUID] = drivertest.Unknown{Memory: true}
			case 4:
				h.Unknown[d.UUID] = drivertest.Unknown{Processes: true}
			default:
				continue
			}
			held[d.UUID] = true
		}
		wasFree := map[gpu.UUID]bool{}
		for id, e := range h.Ledger {
			wasFree[id] = e.State == drivers.Free
		}
		h.Wrote = func(changes []drivers.Change) {
			for _, c := range changes {
				if c.To.State == drivers.Free && held[c.To.GPU] {
					t.Errorf("%s became free though it was held", c.To.GPU)
				}
			}
		}
		later := noon().Add(drivers.HeldPatience)
		for range 8 * drivers.HeldTries {
			for _, s := range ordered(t, drivers.PlanHandover(observe(t, h), present, later)).Steps {
				_ = room(h).Apply(context.Background(), s, nil)
			}
		}
		for id := range held {
			if e := h.Ledger[id]; e.State != drivers.Quarantined && !kept(e, present) && !wasFree[id] {
				t.Errorf("%s is held and ended %s: %s", id, e.State, e.Reason)
			}
		}
	})
}

func kept(e drivers.Entry, present map[spec.UID]bool) bool {
	return present[e.Owner] && (e.State == drivers.Reserved || e.State == drivers.Assigned)
}

// TestNeverAssignedTwice runs starts of many instances from plans that may be
// stale, ends some, crashes in between, and follows every owner in the history.
func TestNeverAssignedTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drivertest.NewHost(inventoryOf(t, "nvlink-pairs"))
		present := map[spec.UID]bool{}
		settle(t, h, present)
		stale := observe(t, h)
		for range rapid.IntRange(1, 30).Draw(t, "moves") {
			r := randomRequest(t)
			switch rapid.IntRange(0, 3).Draw(t, "move") {
			case 0:
				stale = observe(t, h)
			case 1:
				delete(present, r.Instance)
				settle(t, h, present)
			default:
				present[r.Instance] = true
				p, err := drivers.PlanInstance(r, own(stale, h, r.Instance))
				if err != nil {
					continue
				}
				steps := ordered(t, p).Steps
				_ = apply(h, plan.Of(steps[:rapid.IntRange(0, len(steps)).Draw(t, "crash after")]...))
			}
		}
		checkOwners(t, h.History)
	})
}

func randomRequest(t *rapid.T) drivers.Request {
	name := fmt.Sprintf("i%d", rapid.IntRange(1, 4).Draw(t, "instance"))
	return drivers.Request{
		Instance: spec.UID("uid-" + name), Tenant: "acme", Name: name,
		Count: rapid.IntRange(0, 5).Draw(t, "count"), Want: true,
	}
}

// own is an old view of all GPUs but the instance's own: its lane is the only
// one that plans for it.
func own(stale drivers.Have, h *drivertest.Host, instance spec.UID) drivers.Have {
	entries := maps.Clone(stale.Entries)
	for id, e := range h.Ledger {
		if e.Owner == instance || entries[id].Owner == instance {
			entries[id] = e
		}
	}
	stale.Entries = entries
	return stale
}

func checkOwners(t *rapid.T, history []drivers.Change) {
	owner := map[gpu.UUID]spec.UID{}
	for _, c := range history {
		id, to := c.To.GPU, c.To
		if was := owner[id]; was != "" && to.Owner != was && to.State != drivers.Free {
			t.Errorf("%s passed from %s to %s without being free", id, was, to.Owner)
		}
		owner[id] = to.Owner
	}
}

func TestInstancePlanConvergesAndIsMinimal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drivertest.NewHost(inventoryOf(t, "dgx-a100"))
		settle(t, h, nil)
		for range 4 {
			r := randomRequest(t)
			p, err := drivers.PlanInstance(r, observe(t, h))
			if fault.Is(err, fault.Exhausted) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			once := ordered(t, p)
			if err := apply(h, once); err != nil {
				t.Fatal(err)
			}
			before := maps.Clone(h.Ledger)
			if err := apply(h, once); err != nil && !slices.ContainsFunc(once.Steps, isDrain) {
				t.Fatalf("again: %v", err)
			}
			if diff := cmp.Diff(before, h.Ledger); diff != "" {
				t.Fatalf("twice is not once:\n%s", diff)
			}
			if again, err := drivers.PlanInstance(r, observe(t, h)); err != nil || !again.Empty() {
				t.Fatalf("not converged: %v\n%s", err, again.Text())
			}
		}
	})
}

func isDrain(s plan.Step) bool { return s.Verb == drivers.VerbDrain }

func TestPretendHostKeepsTheContracts(t *testing.T) {
	h := drivertest.NewHost(inventoryOf(t, "nvlink-pairs"))
	drivertest.NVMLContract(t, h)
	drivertest.LedgerContract(t, h)
}
