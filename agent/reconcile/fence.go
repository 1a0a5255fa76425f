package reconcile

import (
	"context"
	"fmt"
	"time"

	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/agent/store"
	"github.com/gpuhost/gpuhost/isolation"
)

// Suspect notes that a control of a running instance was not found as granted.
// With fence the instance is fenced: written down first, so that no later agent
// opens it again, then at once, because its lane may be busy for long. It stays
// fenced until the operator restarts it.
func (l *Loop) Suspect(ctx context.Context, o *spec.Object, c spec.Control, fence bool) error {
	text := fmt.Sprintf("control %s (%s): expected %s, found %s", c.ID, c.Name, c.Expected, c.Found)
	l.mu.Lock()
	known := l.suspects[o.Metadata.UID]
	l.suspects[o.Metadata.UID] = runOf(o)
	l.mu.Unlock()
	if known != runOf(o) {
		l.event(o, "AuditFailed", text)
	}
	if !fence {
		return nil
	}
	defer l.TriggerInstance(o.Metadata.UID)
	err := l.Store.UpdateRecord(o.Metadata.UID, func(r *store.Record) { r.FencedRun = runOf(o) })
	if err != nil {
		return err
	}
	return l.Isolation.Apply(ctx, fenceStep(o, text), func(plan.Progress) {})
}

func fenceStep(o *spec.Object, why string) plan.Step {
	step := plan.NewStep(plan.Isolation, isolation.VerbFence, string(o.Metadata.UID), why, isolation.EndArgs{Tenant: o.Metadata.Tenant})
	step.Title, step.Risk = o.Ref().String(), plan.RiskDisrupts
	return step
}

// aliveWithin is how long the pulse may be silent before the watchdog is not fed.
const aliveWithin = time.Minute

// Alive says whether lanes are still being served.
func (l *Loop) Alive() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Now().Sub(l.beat) < aliveWithin
}
