package reconcile

import (
	"context"
	"net/netip"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/agent/store"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/network"
)

// replans bounds how often one run plans again because another lane was first.
const replans = 5

// instance is one run of an instance's lane.
func (l *Loop) instance(ctx context.Context, uid spec.UID) (time.Duration, error) {
	o, err := l.Store.GetUID(uid)
	if fault.Is(err, fault.NotFound) {
		l.hold(uid, false)
		l.lanes.forget(instanceLane + string(uid))
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	rec := l.changes.recorder(o)
	for range replans {
		var view *view
		view, err = l.converge(ctx, o, rec)
		if fault.Is(err, fault.Conflict) {
			continue
		}
		return l.settle(ctx, o, view, rec, err)
	}
	return l.settle(ctx, o, nil, rec, err)
}

// view is everything one instance's plan is made from. It is filled by look and
// then only read.
type view struct {
	object   *spec.Object
	record   store.Record
	decision decision
	at       place
	address  netip.Addr
	lease    isolation.Lease
	have     isolation.Have
	gpus     drivers.Have
	vpc      network.VPC
	net      network.Have
}

// converge observes, plans and applies once.
func (l *Loop) converge(ctx context.Context, o *spec.Object, rec *recorder) (*view, error) {
	v, err := l.look(ctx, o, claimer{loop: l, commit: true})
	if err != nil {
		return nil, err
	}
	if v.decision.keeps() {
		l.hold(o.Metadata.UID, true)
		if err := l.guard(ctx, v, rec); err != nil {
			return v, err
		}
	}
	p, err := v.plan(l.Now())
	if err != nil {
		return v, err
	}
	if p.Empty() {
		return v, nil
	}
	l.phase(v, p)
	if err := l.apply(ctx, p, v.at.vpc.Metadata.UID, rec); err != nil {
		return v, err
	}
	return l.look(ctx, o, claimer{loop: l, commit: true})
}

// look reads what is stored and what is there. With a claimer that does not
// commit it changes nothing at all.
func (l *Loop) look(ctx context.Context, o *spec.Object, c claimer) (*view, error) {
	v := &view{object: o}
	var err error
	if v.record, err = l.Store.Record(o.Metadata.UID); err != nil {
		return nil, err
	}
	v.decision = decide(o, v.record, l.Now())
	if err := l.place(ctx, v, c, l.Store.Get); err != nil {
		return nil, err
	}
	if v.gpus, err = l.Drivers.Observe(ctx); err != nil {
		return nil, err
	}
	if err := l.grant(v); err != nil {
		return nil, err
	}
	if v.have, err = l.Isolation.Observe(ctx, v.lease); err != nil {
		return nil, err
	}
	if v.net, err = l.Network.Observe(ctx, v.at.vpc.Metadata.UID); err != nil {
		return nil, err
	}
	return v, l.noteExit(v, c)
}

// place finds where the instance lives and what it owns there.
func (l *Loop) place(ctx context.Context, v *view, c claimer, find func(spec.Ref) (*spec.Object, error)) error {
	o := v.object
	tenant, err := find(spec.Ref{Kind: spec.KindTenant, Name: o.Metadata.Tenant})
	if err != nil {
		return err
	}
	ids, err := c.ids(ctx, tenant)
	if err != nil {
		return err
	}
	if v.at, err = placeOf(o, find); err != nil {
		return err
	}
	if v.address, err = c.address(ctx, o, v.at); err != nil {
		return err
	}
	v.lease = leaseOf(o, v.decision, ids, nil, l.Settings.Nameserver)
	return nil
}

// grant adds to the lease the GPUs the instance holds or would be given.
func (l *Loop) grant(v *view) error {
	request := requestOf(v.object, v.decision)
	if request.Count == 0 {
		return nil
	}
	if !request.Want {
		v.lease.GPUs = heldBy(v.gpus, request.Instance)
		return nil
	}
	pick, err := drivers.Allocate(v.gpus.Inventory, v.gpus.Entries, request)
	if err != nil {
		return err
	}
	for _, d := range pick.GPUs {
		v.lease.GPUs = append(v.lease.GPUs, isolation.Device{UUID: d.UUID, Minor: d.Minor})
	}
	return nil
}

// heldBy lists the devices the ledger still gives to an instance.
func heldBy(have drivers.Have, uid spec.UID) []isolation.Device {
	var out []isolation.Device
	for _, d := range have.Inventory.Devices {
		if have.Entries[d.UUID].Owner == uid {
			out = append(out, isolation.Device{UUID: d.UUID, Minor: d.Minor})
		}
	}
	return out
}

// noteExit writes down a task's end the moment it is known, and decides again.
// An end of a container that is to be replaced anyway is our own doing and no
// end of the run.
func (l *Loop) noteExit(v *view, c claimer) error {
	if v.have.Container.Task.Status != isolation.TaskExited || v.decision.want != isolation.WantRunning {
		return nil
	}
	if len(v.have.Container.Fingerprint.Differs(isolation.FingerprintOf(v.lease))) > 0 || v.record.EndedRun == runOf(v.object) {
		return nil
	}
	exit := spec.ExitStatus{Unknown: true, At: l.Now()}
	if known := v.have.Container.Task.Exit; known != nil {
		exit = *known
	}
	v.record = afterExit(v.record, v.object, exit)
	v.decision = decide(v.object, v.record, l.Now())
	v.lease.Want = v.decision.want
	if !c.commit {
		return nil
	}
	after := v.record
	l.event(v.object, exitReason(exit), exitMessage(exit))
	return l.Store.UpdateRecord(v.object.Metadata.UID, func(r *store.Record) { *r = after })
}

// plan merges what the three rooms would do for the instance.
func (v *view) plan(now time.Time) (plan.Plan, error) {
	gpus, err := drivers.PlanInstance(requestOf(v.object, v.decision), v.gpus)
	if err != nil {
		return plan.Plan{}, err
	}
	steps := plan.Merge(gpus, isolation.Plan(v.lease, v.have, now), network.PlanEndpoint(v.vpc, v.endpoint(), v.net))
	return steps, nil
}

func (v *view) endpoint() network.Endpoint { return endpointOf(v.object, v.address, "") }
