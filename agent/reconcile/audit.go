package reconcile

import (
	"context"
	"errors"

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

// errBusy says that an instance's lane is at work.
var errBusy = errors.New("its lane is at work")

// Audit reads every control of an instance back from the kernel, waiting for its
// lane. There are none of an instance that does not run.
func (l *Loop) Audit(ctx context.Context, o *spec.Object, read AuditRead) (controls []spec.Control, err error) {
	err = l.lanes.with(ctx, instanceLane+string(o.Metadata.UID), func(ctx context.Context) error {
		controls, err = l.auditHeld(ctx, o.Metadata.UID, read)
		return err
	})
	return controls, err
}

// auditAtRest is Audit for the periodic round: it does not wait for a lane at work,
// which audits by itself before it starts anything.
func (l *Loop) auditAtRest(ctx context.Context, o *spec.Object, read AuditRead) (controls []spec.Control, err error) {
	err = l.lanes.try(ctx, instanceLane+string(o.Metadata.UID), func(ctx context.Context) error {
		controls, err = l.auditHeld(ctx, o.Metadata.UID, read)
		return err
	})
	return controls, err
}

func (l *Loop) auditHeld(ctx context.Context, uid spec.UID, read AuditRead) ([]spec.Control, error) {
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
	if err := l.observe(ctx, v, w); err != nil || v.decision.want != isolation.WantRunning || !v.have.Running() {
		return nil, err
	}
	controls, err := read(ctx, Audited{Object: o, Lease: v.lease})
	if err != nil {
		return nil, err
	}
	guarded, err := l.Guarded(ctx, uid)
	return append(controls, guarded...), err
}

// Guarded reads the network controls of an instance back from the kernel. Where
// they are not as wanted the VPC's lane brings them there first, and tells: a
// change may have been under way, or somebody tampered.
func (l *Loop) Guarded(ctx context.Context, uid spec.UID) (controls []spec.Control, err error) {
	o, err := l.Store.GetUID(uid)
	if err != nil {
		return nil, err
	}
	vpc, err := l.vpcObject(o)
	if err != nil {
		return nil, err
	}
	err = l.inVPC(ctx, vpc, func(ctx context.Context, want *network.VPC) error {
		if controls, err = l.Network.Prove(ctx, *want, uid); err != nil || passed(controls) {
			return err
		}
		l.Log.Warn("network controls were not as wanted", "object", o.Ref().String(), "found", failures(controls))
		if err := l.convergeVPC(ctx, vpc.Metadata.UID, want, l.changes.silent()); err != nil {
			return err
		}
		controls, err = l.Network.Prove(ctx, *want, uid)
		return err
	})
	if err != nil {
		return controls, err
	}
	host, err := l.provenHost(ctx)
	return append(controls, host), err
}

// inVPC runs f in a VPC's lane with what the VPC should hold now.
func (l *Loop) inVPC(ctx context.Context, vpc *spec.Object, f func(context.Context, *network.VPC) error) error {
	return l.lanes.with(ctx, vpcLane+string(vpc.Metadata.UID), func(ctx context.Context) error {
		want, err := l.wantVPC(ctx, vpc)
		if err != nil {
			return err
		}
		if want == nil {
			return fault.New(fault.Temporary, "look at "+vpc.Ref().String(), "no instance has a place in it")
		}
		return f(ctx, want)
	})
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
	return l.inVPC(ctx, vpc, func(ctx context.Context, want *network.VPC) error {
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
