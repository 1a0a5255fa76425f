package reconcile

import (
	"testing"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// A containerd or a kernel that does not answer says nothing about what runs.
func TestWhatCannotBeLookedAtIsUnknown(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		b.write(instance("a", 1))
		settle()
		pid := b.get("a").Status.Instance.Pid
		b.setBlind(fault.New(fault.Temporary, "look", "containerd does not answer"))
		settle()
		if got := b.get("a").Status; got.Phase != spec.PhaseUnknown || got.Instance.Pid != pid {
			t.Errorf("an instance that cannot be looked at: %+v, %+v", got, got.Instance)
		}
		if got := b.vpcObject().Status.Phase; got != spec.PhaseUnknown {
			t.Errorf("a network that cannot be looked at is %s", got)
		}
		b.setBlind(nil)
		settle()
		if got, vpc := b.phase("a"), b.vpcObject().Status.Phase; got != spec.PhaseRunning || vpc != spec.PhaseRunning {
			t.Errorf("seen again: the instance is %s, the network %s", got, vpc)
		}
	})
}

// setBlind lets every lane look, with or without success.
func (b *bench) setBlind(err error) {
	b.mu.Lock()
	b.blind = err
	b.mu.Unlock()
	b.loop.TriggerAll()
}

// An instance waits for the GPU that it gave back: what an operator does to it is
// told to the instance at once.
func TestTheLastHolderHearsOfAQuarantine(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		b.write(instance("a", 1), instance("b", 0))
		settle()
		held := gpu.UUID(b.get("a").Status.Instance.GPUs[0])
		b.givenBack(held)
		asked, others := b.asks("a"), b.asks("b")
		err := b.loop.OnGPU(t.Context(), held, func(have drivers.Have) (plan.Plan, error) {
			return drivers.PlanQuarantine(have, held, "it smells")
		})
		if err != nil {
			t.Fatal(err)
		}
		if b.asks("a") == asked || b.asks("b") != others {
			t.Error("the lane of the instance that had the GPU, and no other, is to be woken")
		}
	})
}

// givenBack puts a GPU on its way from its owner into the ledger.
func (b *bench) givenBack(id gpu.UUID) {
	b.t.Helper()
	ledger := b.store.Ledger()
	entries, err := ledger.Entries(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	draining := entries[id]
	draining.State = drivers.Draining
	if err := ledger.Transition(b.t.Context(), []drivers.Change{{From: entries[id].State, To: draining}}); err != nil {
		b.t.Fatal(err)
	}
}

// asks counts what was asked of an instance's lane.
func (b *bench) asks(name string) uint64 {
	b.t.Helper()
	key := instanceLane + string(b.get(name).Metadata.UID)
	b.loop.lanes.mu.Lock()
	defer b.loop.lanes.mu.Unlock()
	return b.loop.lanes.lane[key].asked
}
