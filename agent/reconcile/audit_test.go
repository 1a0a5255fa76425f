package reconcile

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
)

// A job that ends during its audit has done nothing: it is restarted, not fenced.
func TestTheEndOfATaskInItsAuditFencesNobody(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		o := instance("a", 1)
		o.Spec.(*spec.InstanceSpec).Restart = spec.RestartAlways
		b.write(o)
		settle()
		o = b.get("a")
		controls, err := b.loop.auditAtRest(t.Context(), o, func(_ context.Context, a Audited) ([]spec.Control, error) {
			b.exit(a.Lease.UID, 0, time.Now())
			return nil, fault.New(fault.Conflict, "audit", "its task ended meanwhile")
		})
		if !fault.Is(err, fault.Conflict) || len(controls) > 0 {
			t.Errorf("auditAtRest = %v, %v", controls, err)
		}
		b.loop.TriggerInstance(o.Metadata.UID)
		settle()
		if got := b.get("a").Status; got.Phase != spec.PhaseRunning || got.Instance.Restarts != 1 {
			t.Errorf("afterwards: %s with %d restarts", got.Phase, got.Instance.Restarts)
		}
	})
}

// A task that waits for its start has no link yet and is no finding: its lane audits
// it when it has. After a restart of the agent nobody knows that it waits.
func TestATaskThatWaitsForItsStartIsNoFinding(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		b.write(instance("a", 1))
		settle()
		o := b.get("a")
		b.mu.Lock()
		b.containers[o.Metadata.UID].Container.Task.Status = isolation.TaskCreated
		b.mu.Unlock()
		controls, err := b.loop.auditAtRest(t.Context(), o, func(context.Context, Audited) ([]spec.Control, error) {
			return []spec.Control{{ID: "N2", Found: "missing"}}, nil
		})
		if !fault.Is(err, fault.Conflict) || len(controls) > 0 {
			t.Errorf("auditAtRest = %v, %v", controls, err)
		}
	})
}

// An instance of which a control could not be looked at is told of where problems
// are, not in the log alone, looked at again soon, and not fenced.
func TestWhatCouldNotBeLookedAtIsAProblem(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		b.write(instance("a", 1))
		settle()
		var tries atomic.Int32
		var sees atomic.Bool
		b.rounds(t, time.Hour, func(context.Context, Audited) ([]spec.Control, error) {
			tries.Add(1)
			return []spec.Control{{ID: "D3", Found: "could not look: no canary", Pass: sees.Load(), Unknown: !sees.Load()}}, nil
		})
		time.Sleep(2*auditFailed + time.Second)
		synctest.Wait()
		found := b.loop.Problems()
		if len(found) != 1 || found[0].Name != b.get("a").Ref().String() || !found[0].Task || !strings.Contains(found[0].Err.Error(), "no canary") {
			t.Errorf("problems: %+v", found)
		}
		if n := tries.Load(); n != 3 {
			t.Errorf("looked at %d times", n)
		}
		if p := b.get("a").Status.Phase; p != spec.PhaseRunning {
			t.Errorf("the instance is %s", p)
		}
		sees.Store(true)
		time.Sleep(auditFailed)
		synctest.Wait()
		if found := b.loop.Problems(); len(found) > 0 {
			t.Errorf("afterwards: %+v", found)
		}
	})
}

// What is not to run any more is no problem of the audit's.
func TestAnAuditsProblemEndsWithItsInstance(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		b.write(instance("a", 1))
		settle()
		b.rounds(t, time.Hour, func(context.Context, Audited) ([]spec.Control, error) {
			return nil, fault.New(fault.Temporary, "read", "not now")
		})
		time.Sleep(time.Second)
		synctest.Wait()
		if found := b.loop.Problems(); len(found) != 1 {
			t.Errorf("problems: %+v", found)
		}
		b.remove("a")
		settle()
		time.Sleep(2 * auditFailed)
		synctest.Wait()
		if found := b.loop.Problems(); len(found) > 0 {
			t.Errorf("afterwards: %+v", found)
		}
	})
}
