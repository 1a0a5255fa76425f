package reconcile

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/network"
)

// An audit compares a running task with its lease. Both stand still only while
// the instance's lane rests, and a VPC's rules are as wanted only once its lane
// has loaded them: so an audit runs inside these lanes. What it reports is then a
// difference that nobody is about to mend.

// Audited is one running instance and what it was granted.
type Audited struct {
	Object *spec.Object
	Lease  isolation.Lease
}

// AuditRead reads the controls of one room.
type AuditRead func(ctx context.Context, a Audited) ([]spec.Control, error)

// errBusy says that a lane is at work.
var errBusy = errors.New("its lane is at work")

// errUnknown says that the network's controls are not known: somebody is at work on
// what decides about them. The other controls are known nevertheless.
var errUnknown = fault.New(fault.Busy, "read the network's controls", "they are unknown while its rules are worked at; they are read again")

// How long an audit waits for the lanes of its instance's network: one tenant's must
// not hold what others wait for.
const (
	roundPatience = time.Second
	askedPatience = 5 * time.Second
)

// Audit reads every control of an instance back from the kernel, waiting for its
// lane. There are none of an instance that does not run. Where those of its network
// cannot be known, that has not passed.
func (l *Loop) Audit(ctx context.Context, o *spec.Object, read AuditRead) (controls []spec.Control, err error) {
	err = l.lanes.with(ctx, instanceLane+string(o.Metadata.UID), func(ctx context.Context) error {
		controls, err = l.auditHeld(ctx, o.Metadata.UID, read, askedPatience)
		return err
	})
	if errors.Is(err, errUnknown) {
		unknown := spec.Control{ID: "N", Name: "the network's controls", Expected: "known", Found: "unknown: its rules are worked at; ask again", Unknown: true}
		return append(controls, unknown), nil
	}
	return controls, err
}

// auditAtRest is Audit for the periodic round: it does not wait for an instance's
// lane at work, which audits by itself before it starts anything.
func (l *Loop) auditAtRest(ctx context.Context, o *spec.Object, read AuditRead) (controls []spec.Control, err error) {
	err = l.lanes.try(ctx, instanceLane+string(o.Metadata.UID), func(ctx context.Context) error {
		controls, err = l.auditHeld(ctx, o.Metadata.UID, read, roundPatience)
		return err
	})
	return controls, err
}

func (l *Loop) auditHeld(ctx context.Context, uid spec.UID, read AuditRead, patience time.Duration) ([]spec.Control, error) {
	o, err := l.Store.GetUID(uid)
	if err != nil {
		return nil, err
	}
	w, err := l.world()
	if err != nil {
		return nil, err
	}
	w.claims = l.drafting()
	gpus, err := l.Drivers.Observe(ctx)
	if err != nil {
		return nil, err
	}
	v, err := l.intend(ctx, o, w, gpus)
	if err != nil || v.decision.want != isolation.WantRunning {
		return nil, err
	}
	controls, err := read(ctx, Audited{Object: o, Lease: v.lease})
	if err != nil {
		return nil, cmp.Or(l.unlessItRuns(ctx, v, w), err)
	}
	guarded, err := l.guarded(ctx, o, func(key string, f func(context.Context) error) error {
		return l.lanes.within(ctx, key, patience, f)
	})
	if errors.Is(err, errBusy) {
		err = errUnknown
	}
	controls = append(controls, guarded...)
	if !passed(controls) {
		if ended := l.unlessItRuns(ctx, v, w); ended != nil {
			return nil, ended
		}
	}
	return controls, err
}

// unlessItRuns is why an audit that found something, or came to nothing, says nothing:
// a task that has ended, or that waits for its start, is no finding. Only then is the
// instance looked at in whole, which costs as much as the audit.
func (l *Loop) unlessItRuns(ctx context.Context, v *view, w world) error {
	if err := l.observe(ctx, v, w); err != nil {
		return err
	}
	if v.decision.want == isolation.WantRunning && v.have.Running() {
		return nil
	}
	return fault.New(fault.Conflict, "audit "+v.object.Ref().String(), "it does not run")
}

// Guarded reads the network controls of an instance back from the kernel, waiting
// for its network's lane. Where they are not as wanted the lane brings them there
// first, and tells: a change may have been under way, or somebody tampered.
func (l *Loop) Guarded(ctx context.Context, uid spec.UID) ([]spec.Control, error) {
	o, err := l.Store.GetUID(uid)
	if err != nil {
		return nil, err
	}
	return l.guarded(ctx, o, func(key string, f func(context.Context) error) error {
		return l.lanes.with(ctx, key, f)
	})
}

// held runs f while no run of a lane is under way.
type held func(lane string, f func(context.Context) error) error

func (l *Loop) guarded(ctx context.Context, o *spec.Object, in held) ([]spec.Control, error) {
	vpc, err := l.vpcObject(o)
	if err != nil {
		return nil, err
	}
	var controls []spec.Control
	err = in(vpcLane+string(vpc.Metadata.UID), func(ctx context.Context) error {
		controls, err = l.provenVPC(ctx, o, vpc)
		return err
	})
	if err != nil {
		return controls, err
	}
	var host spec.Control
	err = in(laneGuard, func(ctx context.Context) error {
		host, err = l.provenHost(ctx)
		return err
	})
	if err != nil {
		return controls, err
	}
	return append(controls, host), nil
}

// provenVPC proves an instance's controls in its VPC. The caller holds the VPC's
// lane.
func (l *Loop) provenVPC(ctx context.Context, o, vpc *spec.Object) ([]spec.Control, error) {
	uid := o.Metadata.UID
	want, err := l.wantedVPC(ctx, vpc)
	if err != nil {
		return nil, err
	}
	controls, err := l.Network.Prove(ctx, *want, uid)
	if err != nil || passed(controls) {
		return controls, err
	}
	l.Log.Warn("network controls were not as wanted", "object", o.Ref().String(), "found", failures(controls))
	if err := l.convergeVPC(ctx, vpc.Metadata.UID, want, l.changes.silent()); err != nil {
		return controls, err
	}
	return l.Network.Prove(ctx, *want, uid)
}

// wantedVPC is what the VPC of an instance should hold now.
func (l *Loop) wantedVPC(ctx context.Context, vpc *spec.Object) (*network.VPC, error) {
	want, err := l.wantVPC(ctx, vpc)
	if err == nil && want == nil {
		err = fault.New(fault.Temporary, "look at "+vpc.Ref().String(), "no instance has a place in it")
	}
	return want, err
}

// proveGuard applies prove-guard: against what the VPC should hold at this
// moment, which may be more than when the step was planned.
func (l *Loop) proveGuard(ctx context.Context, step plan.Step, report plan.Report) error {
	args, err := plan.ArgsAs[network.EndpointArgs](step)
	if err != nil {
		return err
	}
	vpc, err := l.Store.GetUID(args.VPC)
	if err != nil {
		return err
	}
	return l.lanes.with(ctx, vpcLane+string(args.VPC), func(ctx context.Context) error {
		want, err := l.wantedVPC(ctx, vpc)
		if err != nil {
			return err
		}
		if err := l.convergeVPC(ctx, args.VPC, want, l.changes.silent()); err != nil {
			return err
		}
		args.Whole = want
		step.Args = args
		return l.Network.Apply(ctx, step, report)
	})
}

func passed(controls []spec.Control) bool { return failures(controls) == nil }

func failures(controls []spec.Control) []string {
	var out []string
	for _, c := range controls {
		if !c.Pass {
			out = append(out, c.ID+": "+c.Found)
		}
	}
	return out
}
