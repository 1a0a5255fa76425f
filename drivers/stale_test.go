package drivers_test

import (
	"context"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/drivers/drivertest"
)

// TestStalePlanChangesNothing applies plans after somebody else changed the
// ledger: another plan is asked for (at once, where another GPU may be free), and
// nothing is taken from anybody.
func TestStalePlanChangesNothing(t *testing.T) {
	reserve := func(have drivers.Have) (plan.Plan, error) { return drivers.PlanInstance(request(1), have) }
	handover := func(have drivers.Have) (plan.Plan, error) { return drivers.PlanHandover(have, nil, noon()), nil }
	for _, row := range []struct {
		name           string
		planned, found string
		reserved       bool // what is planned from is reserved and not assigned
		want           fault.Kind
		make           func(drivers.Have) (plan.Plan, error)
		change         func(e drivers.Entry) drivers.Entry
	}{
		{name: "reserved for another", want: fault.Conflict, planned: "........", found: "a.......", make: reserve},
		{name: "in hand-over", want: fault.Temporary, planned: "........", found: "~.......", make: reserve},
		{name: "free in another boot", want: fault.Temporary, planned: "........", found: "........", make: reserve,
			change: func(e drivers.Entry) drivers.Entry { e.BootID = "boot-1"; return e }},
		{name: "reserved for another before it was assigned", want: fault.Conflict, planned: "n.......", reserved: true, found: "a.......", make: reserve,
			change: func(e drivers.Entry) drivers.Entry { e.State = drivers.Reserved; return e }},
		{name: "given to another before it was drained", want: fault.Temporary, planned: "a.......", found: "b.......", make: handover},
		{name: "free before it was drained", want: fault.Temporary, planned: "a.......", found: "........", make: handover},
	} {
		t.Run(row.name, func(t *testing.T) {
			have := haveOf(t, row.planned)
			first := have.Inventory.Devices[0].UUID
			if row.reserved {
				e := have.Entries[first]
				e.State = drivers.Reserved
				have.Entries[first] = e
			}
			p, err := row.make(have)
			if err != nil || p.Empty() {
				t.Fatalf("have %v\n%s", err, p.Text())
			}
			h := drivertest.NewHost(have.Inventory)
			maps.Copy(h.Ledger, ledger(have.Inventory, row.found))
			if row.change != nil {
				h.Ledger[first] = row.change(h.Ledger[first])
			}
			before := maps.Clone(h.Ledger)
			if err := room(h).Apply(context.Background(), p.Steps[0], nil); !fault.Is(err, row.want) {
				t.Errorf("have %v (%s), want %s", err, fault.KindOf(err), row.want)
			}
			if diff := cmp.Diff(before, h.Ledger); diff != "" {
				t.Errorf("the ledger changed:\n%s", diff)
			}
		})
	}
}

// A helper that hangs must not take a GPU from a tenant who runs.
func TestGPUsThatDoNotAnswerStayWithTheirInstances(t *testing.T) {
	have := haveOf(t, "aa......")
	h := drivertest.NewHost(have.Inventory)
	maps.Copy(h.Ledger, ledger(have.Inventory, "aa......"))
	r := room(h)
	before, err := r.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h.Fail = func(operation string) error {
		if operation == "inventory" {
			return fault.New(fault.Timeout, "ask", "it hangs")
		}
		return nil
	}
	r.Forget()
	stale, err := r.Observe(t.Context())
	if err != nil || !stale.Stale || len(stale.Inventory.Devices) != 2 {
		t.Fatalf("observed %d devices, stale %v, %v; want the two that are held", len(stale.Inventory.Devices), stale.Stale, err)
	}
	if p := drivers.PlanHandover(stale, nil, noon()); !p.Empty() {
		t.Errorf("a hand-over without an answer: %s", p.Text())
	}
	if diff := cmp.Diff(before.Inventory.Devices[:2], stale.Inventory.Devices); diff != "" {
		t.Error(diff)
	}
}
