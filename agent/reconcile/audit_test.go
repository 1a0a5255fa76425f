package reconcile

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// A job that ends during its audit has done nothing: it is restarted, not fenced.
func TestTheEndOfATaskInItsAuditFencesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run()
		defer b.halt()
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
