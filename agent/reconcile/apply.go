package reconcile

import (
	"context"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/network"
)

// apply carries out a plan step by step and records each in rec. The first
// failure ends it: the next run observes again and plans from what it finds.
func (l *Loop) apply(ctx context.Context, p plan.Plan, vpc spec.UID, rec *recorder) error {
	ordered, err := p.Ordered()
	if err != nil {
		return err
	}
	rec.planned(ordered)
	for _, step := range ordered.Steps {
		if err := l.stillWanted(step, rec); err != nil {
			return err
		}
		if err := l.applyStep(ctx, step, vpc, rec); err != nil {
			return err
		}
	}
	return nil
}

// stillWanted ends a plan before it makes or starts a task for an instance that
// was changed or deleted meanwhile: pulling an image takes long.
func (l *Loop) stillWanted(step plan.Step, rec *recorder) error {
	if rec.object == nil || step.Verb != isolation.VerbCreate && step.Verb != isolation.VerbStart {
		return nil
	}
	now, err := l.Store.GetUID(rec.object.Metadata.UID)
	if err != nil {
		return err
	}
	if now.Metadata.Generation != rec.object.Metadata.Generation {
		return fault.New(fault.Conflict, step.Verb+" "+step.Title, "it was changed meanwhile")
	}
	return nil
}

func (l *Loop) applyStep(ctx context.Context, step plan.Step, vpc spec.UID, rec *recorder) error {
	l.at("before", step)
	if err := ctx.Err(); err != nil {
		return err
	}
	rec.started(step)
	begin := l.Now()
	err := l.interruptible(ctx, step, rec.object, func(ctx context.Context) error {
		return l.toRoom(ctx, step, vpc, rec.progress(step))
	})
	took := l.Now().Sub(begin)
	l.Metrics.ObserveStep(string(step.Room), step.Verb, took, err)
	rec.ended(step, took, err)
	if err != nil {
		return err // the room said which step
	}
	l.Log.Info("step applied", "room", string(step.Room), "verb", step.Verb, "object", step.Object, "title", step.Title, "why", step.Why, "took", took.Round(time.Microsecond).String())
	l.at("after", step)
	return nil
}

func (l *Loop) at(when string, step plan.Step) {
	if l.AtStep != nil {
		l.AtStep(when, step)
	}
}

// toRoom hands a step to its room. Network steps of an instance change what its
// VPC's lane owns and wait for that lane.
func (l *Loop) toRoom(ctx context.Context, step plan.Step, vpc spec.UID, report plan.Report) error {
	switch step.Room {
	case plan.Drivers:
		return l.Drivers.Apply(ctx, step, report)
	case plan.Isolation:
		return l.Isolation.Apply(ctx, step, report)
	case plan.Network:
		if step.Object == string(vpc) {
			return l.Network.Apply(ctx, step, report) // the lane holds it already
		}
		if step.Verb == network.VerbProveGuard {
			return l.proveGuard(ctx, step, report)
		}
		return l.lanes.with(ctx, vpcLane+string(vpc), func(ctx context.Context) error {
			err := l.Network.Apply(ctx, step, report)
			if err != nil {
				l.lanes.disturb(vpcLane + string(vpc)) // what it left half-way is seen by the next look
			}
			return err
		})
	default:
		return fault.New(fault.Internal, string(step.ID), "no room is called %q", step.Room)
	}
}
