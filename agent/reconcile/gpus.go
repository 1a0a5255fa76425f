package reconcile

import (
	"context"
	"errors"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// handoverPause is between two tries of a hand-over that is held up.
const handoverPause = time.Second

// gpus is one run of the hand-over lane: every GPU whose owner is gone goes its
// way back to Free or into quarantine. GPUs are independent: one that is held up
// does not keep the others.
func (l *Loop) gpus(ctx context.Context) (time.Duration, error) {
	have, err := l.Drivers.Observe(ctx)
	if err != nil {
		return 0, err
	}
	p := drivers.PlanHandover(have, l.holders(), l.Now())
	if p.Empty() {
		return 0, nil
	}
	rec := l.changes.silent()
	var errs []error
	for _, one := range byObject(p) {
		if err := l.apply(ctx, one, "", rec); err != nil {
			errs = append(errs, err)
		}
	}
	l.wakeWaiting()
	err = errors.Join(errs...)
	if fault.Is(err, fault.Temporary) || fault.Is(err, fault.Busy) {
		l.Log.Warn("hand-over is held up", "error", err)
		return handoverPause, nil
	}
	return handoverPause, err
}

// byObject splits a plan into one for each object, in the order of first
// appearance.
func byObject(p plan.Plan) []plan.Plan {
	var order []string
	parts := make(map[string][]plan.Step)
	for _, s := range p.Steps {
		if _, seen := parts[s.Object]; !seen {
			order = append(order, s.Object)
		}
		parts[s.Object] = append(parts[s.Object], s)
	}
	out := make([]plan.Plan, len(order))
	for i, object := range order {
		out[i] = plan.Of(parts[object]...)
	}
	return out
}

// wakeWaiting triggers the instances that may have waited for a GPU.
func (l *Loop) wakeWaiting() {
	instances, err := l.Store.List(spec.KindInstance, "")
	if err != nil {
		l.Log.Error("list instances", "error", err)
		return
	}
	for _, o := range instances {
		if instanceOf(o).GPUs.Count > 0 {
			l.TriggerInstance(o.Metadata.UID)
		}
	}
}

// OnGPU applies a plan made for one GPU on the operator's order, in the hand-over
// lane, and lets the lane look again.
func (l *Loop) OnGPU(ctx context.Context, id gpu.UUID, makePlan func(drivers.Have) (plan.Plan, error)) error {
	defer l.lanes.trigger(laneGPUs)
	return l.lanes.with(ctx, laneGPUs, func(ctx context.Context) error {
		have, err := l.Drivers.Observe(ctx)
		if err != nil {
			return err
		}
		p, err := makePlan(have)
		if err != nil {
			return err
		}
		if owner := have.Entries[id].Owner; owner != "" {
			defer l.TriggerInstance(owner) // it may wait for the GPU it gave back
		}
		return l.apply(ctx, p, "", l.changes.silent())
	})
}
