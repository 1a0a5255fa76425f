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
// ledger: the next plan is asked for, and nothing is taken from anybody.
func TestStalePlanChangesNothing(t *testing.T) {
	reserve := func(have drivers.Have) (plan.Plan, error) { return drivers.PlanInstance(request(1), have) }
	handover := func(have drivers.Have) (plan.Plan, error) { return drivers.PlanHandover(have, nil, noon()), nil }
	for _, row := range []struct {
		name           string
		planned, found string
		reserved       bool // what is planned from is reserved and not assigned
		make           func(drivers.Have) (plan.Plan, error)
		change         func(e drivers.Entry) drivers.Entry
	}{
		{name: "reserved for another", planned: "........", found: "a.......", make: reserve},
		{name: "in hand-over", planned: "........", found: "~.......", make: reserve},
		{name: "free in another boot", planned: "........", found: "........", make: reserve,
			change: func(e drivers.Entry) drivers.Entry { e.BootID = "boot-1"; return e }},
		{name: "reserved for another before it was assigned", planned: "n.......", reserved: true, found: "a.......", make: reserve,
			change: func(e drivers.Entry) drivers.Entry { e.State = drivers.Reserved; return e }},
		{name: "given to another before it was drained", planned: "a.......", found: "b.......", make: handover},
		{name: "free before it was drained", planned: "a.......", found: "........", make: handover},
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
			if err := room(h).Apply(context.Background(), p.Steps[0], nil); !fault.Is(err, fault.Temporary) {
				t.Errorf("have %v", err)
			}
			if diff := cmp.Diff(before, h.Ledger); diff != "" {
				t.Errorf("the ledger changed:\n%s", diff)
			}
		})
	}
}
