package reconcile

import (
	"context"
	"maps"
	"net/netip"
	"strings"
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
	waited := false
	for try := 1; ; try++ {
		asked := l.lanes.begin(instanceLane + string(uid))
		change := l.changes.current(uid)
		o, err := l.Store.GetUID(uid)
		if fault.Is(err, fault.NotFound) {
			l.forgetInstance(uid)
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		rec := l.changes.recorderOf(o, change)
		view, err := l.converge(ctx, o, rec)
		again := fault.Is(err, fault.Conflict) || l.handedOver(ctx, &waited, err)
		if again && try < replans {
			continue
		}
		pause, failed := l.settle(ctx, o, view, rec, err)
		if err == nil && failed == nil && pause == 0 && view.done {
			l.lanes.rest(instanceLane+string(uid), asked)
		}
		return pause, failed
	}
}

// forgetInstance lets go of what the loop remembered of an instance that is no
// longer stored. A stranger's hold is the sweep's to end.
func (l *Loop) forgetInstance(uid spec.UID) {
	l.changes.gone(uid)
	l.mu.Lock()
	strange := l.strange[uid]
	l.mu.Unlock()
	if !strange {
		l.hold(uid, false)
	}
	l.lanes.forget(instanceLane + string(uid))
}

// handedOver says whether planning anew may find GPUs that were not free: it
// lets a hand-over under way come to its end, once in a run. After a boot every
// GPU is in hand-over, and the first instance must not be told that none is free.
func (l *Loop) handedOver(ctx context.Context, waited *bool, err error) bool {
	if *waited || !fault.Is(err, fault.Exhausted) {
		return false
	}
	*waited = true
	return l.lanes.do(ctx, laneGPUs) == nil
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
	vpc      network.VPC // filled where the instance has a place in it
	end      network.Endpoint
	net      network.Have
	done     bool // nothing was left to do when it was looked at
}

// converge observes, plans and applies once, and observes again.
func (l *Loop) converge(ctx context.Context, o *spec.Object, rec *recorder) (*view, error) {
	if err := l.takePlace(ctx, o); err != nil {
		return nil, err
	}
	w, err := l.world()
	if err != nil {
		return nil, err
	}
	v, err := l.look(ctx, o, w)
	if err != nil {
		return v, err
	}
	if err := l.refuseUnlimited(v); err != nil {
		return v, err
	}
	if err := l.beginRun(v); err != nil {
		return v, err
	}
	p, err := l.planGuarded(ctx, v, rec)
	if v.done = p.Empty(); err != nil || v.done {
		return v, err
	}
	l.phase(v, p)
	if err := l.apply(ctx, p, v.at.vpc.Metadata.UID, rec); err != nil {
		return v, err
	}
	if len(heldBy(v.gpus, o.Metadata.UID)) > instanceOf(o).GPUs.Count {
		l.lanes.trigger(laneGPUs) // those it gave back are on their way
	}
	after, err := l.look(ctx, o, w)
	if err != nil {
		return after, err
	}
	after.vpc = v.vpc
	left, err := after.plan(l.Network, l.Now())
	after.done = err == nil && left.Empty()
	return after, nil // what is left is the next run's
}

// planGuarded plans an instance once its rules are in force. Where nothing is to
// be done to it, and nothing was asked of its VPC since that was as it should be,
// the VPC's own lane is enough.
func (l *Loop) planGuarded(ctx context.Context, v *view, rec *recorder) (plan.Plan, error) {
	if !v.decision.keeps() {
		return v.plan(l.Network, l.Now())
	}
	own, err := v.plan(l.Network, l.Now())
	if err != nil {
		return plan.Plan{}, err
	}
	lane := vpcLane + string(v.at.vpc.Metadata.UID)
	idle := func() bool { return own.Empty() && l.lanes.atRest(lane) }
	if idle() {
		return plan.Plan{}, nil
	}
	guarded := false
	err = l.lanes.with(ctx, lane, func(ctx context.Context) error {
		if idle() {
			return nil // after a restart all of a VPC's instances wait here for the first of them
		}
		guarded = true
		return l.guard(ctx, v, rec)
	})
	if err != nil || !guarded {
		return plan.Plan{}, err
	}
	return v.plan(l.Network, l.Now())
}

// takePlace makes an instance that is to run keep its GPUs before its ledger is
// read. A hand-over under way was planned without it and may be draining a GPU
// that still names it: that is waited for, and the next one sees the instance.
func (l *Loop) takePlace(ctx context.Context, o *spec.Object) error {
	uid := o.Metadata.UID
	record, err := l.Store.Record(uid)
	if err != nil || l.holds(uid) || !decide(o, record, l.Now()).keeps() {
		return err
	}
	return l.lanes.with(ctx, laneGPUs, func(context.Context) error {
		l.hold(uid, true)
		if vpc, err := l.vpcObject(o); err == nil {
			l.lanes.disturb(vpcLane + string(vpc.Metadata.UID)) // it holds one more from now on
		}
		return nil
	})
}

// refuseUnlimited keeps instances from running without a limit they are to have:
// on a real host a missing cgroup controller is a mistake of its set-up.
func (l *Loop) refuseUnlimited(v *view) error {
	left := isolation.LeftOut(v.lease.Limits, v.have.Controllers)
	if len(left) == 0 || l.Settings.Development || v.decision.want != isolation.WantRunning {
		return nil
	}
	return fault.New(fault.Unsupported, "limit "+v.object.Ref().String(), "this host lacks the cgroup controllers %s", strings.Join(left, ", ")).
		WithHint("gpuhost doctor controllers")
}

// beginRun notes, before anything is done, that an ended run is begun again: what
// ends from now on is the new one. Where nobody asked for it, it is a restart; it
// is counted here because a short run is over before anyone sees it.
func (l *Loop) beginRun(v *view) error {
	if v.decision.want != isolation.WantRunning || v.record.EndedRun == "" {
		return nil
	}
	restarts := v.record.Restarts
	if v.record.EndedRun == runOf(v.object) {
		restarts++
	}
	v.record.EndedRun, v.record.Restarts = "", restarts
	return l.Store.UpdateRecord(v.object.Metadata.UID, func(r *store.Record) { r.EndedRun, r.Restarts = "", restarts })
}

// look reads what is remembered of an instance and what is there of it.
func (l *Loop) look(ctx context.Context, o *spec.Object, w world) (*view, error) {
	gpus, err := seen(l.Drivers.Observe(ctx))
	if err != nil {
		return nil, err
	}
	v, err := l.intend(ctx, o, w, gpus)
	if err != nil {
		return nil, err
	}
	if v.net, err = seen(l.Network.Observe(ctx, v.at.vpc.Metadata.UID)); err != nil {
		return nil, err
	}
	return v, l.observe(ctx, v, w)
}

// intend says what an instance should be, from what is stored and these GPUs. In
// a preview's world it changes nothing at all.
func (l *Loop) intend(ctx context.Context, o *spec.Object, w world, gpus drivers.Have) (*view, error) {
	v := &view{object: o, gpus: gpus}
	var err error
	if v.record, err = l.Store.Record(o.Metadata.UID); err != nil {
		return nil, err
	}
	v.decision = decide(o, v.record, l.Now())
	if v.decision.want == isolation.WantRunning && v.record.FencedRun != "" && v.record.FencedRun == runOf(o) {
		v.decision = decision{want: isolation.WantFenced, why: "an isolation control failed; gpuhost restart lets it run anew"}
	}
	if err := l.place(ctx, v, w); err != nil {
		return nil, err
	}
	if !w.claims.commits() {
		v.gpus.Entries = w.entriesFor(o.Metadata.UID, gpus)
	}
	return v, l.grant(v)
}

// observe reads what there is of an instance, and notes its end in a world that
// is real.
func (l *Loop) observe(ctx context.Context, v *view, w world) (err error) {
	if v.have, err = seen(l.Isolation.Observe(ctx, v.lease)); err != nil {
		return err
	}
	return l.noteExit(v, w.claims.commits())
}

// place finds where the instance lives and what it owns there.
func (l *Loop) place(ctx context.Context, v *view, w world) error {
	o := v.object
	tenant, err := w.find(spec.Ref{Kind: spec.KindTenant, Name: o.Metadata.Tenant})
	if err != nil {
		return err
	}
	ids, err := w.claims.ids(ctx, tenant)
	if err != nil {
		return err
	}
	if v.at, err = placeOf(o, w.find); err != nil {
		return err
	}
	if v.address, err = w.claims.addressFor(ctx, v); err != nil {
		return err
	}
	v.lease = leaseOf(o, v.decision, ids, nil, l.Settings.Nameserver)
	v.end = endpointOf(o, v.address, l.Settings.NetnsDir)
	return nil
}

// grant adds to the lease the GPUs the instance holds or would be given.
func (l *Loop) grant(v *view) error {
	request := requestOf(v.object, v.decision)
	if request.Count == 0 {
		return nil
	}
	if request.Want && l.strangers() && len(heldBy(v.gpus, request.Instance)) < request.Count {
		return fault.New(fault.Temporary, "give GPUs to "+v.object.Ref().String(), "an instance that is not stored is being taken away")
	}
	if !request.Want {
		v.lease.GPUs = heldBy(v.gpus, request.Instance)
		return nil
	}
	pick, err := drivers.Allocate(v.gpus.Inventory, v.gpus.Settled(), request)
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
func (l *Loop) noteExit(v *view, commit bool) error {
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
	if !commit {
		return nil
	}
	after := v.record
	l.event(v.object, exitReason(exit), exitMessage(exit))
	return l.Store.UpdateRecord(v.object.Metadata.UID, func(r *store.Record) { *r = after })
}

// plan merges what the three rooms would do for the instance.
func (v *view) plan(planner EndpointPlanner, now time.Time) (plan.Plan, error) {
	gpus, err := drivers.PlanInstance(requestOf(v.object, v.decision), v.gpus)
	if err != nil {
		return plan.Plan{}, err
	}
	container := isolation.Plan(v.lease, v.have, now)
	return plan.Merge(gpus, container, v.planEndpoint(planner, container)), nil
}

// planEndpoint attaches the instance where it is to run, and detaches it where
// it gives up its place. A task that is made anew has a new network namespace:
// the link of the old one ends with it.
func (v *view) planEndpoint(planner EndpointPlanner, container plan.Plan) plan.Plan {
	uid := v.object.Metadata.UID
	switch {
	case !v.decision.keeps() || v.decision.want == isolation.WantFenced:
		p := planner.PlanDetach(v.at.vpc.Metadata.UID, v.end, v.net)
		for i := range p.Steps {
			p.Steps[i].Title = v.object.Ref().String()
		}
		return p
	case v.decision.want != isolation.WantRunning:
		return plan.Plan{}
	case container.Has(plan.MakeID(plan.Isolation, isolation.VerbCreate, string(uid))):
		have := v.net
		have.Links = maps.Clone(have.Links)
		delete(have.Links, uid)
		return planner.PlanEndpoint(v.vpc, v.end, have)
	default:
		return planner.PlanEndpoint(v.vpc, v.end, v.net)
	}
}
