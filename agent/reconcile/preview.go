package reconcile

import (
	"context"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/agent/store"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/drivers/gpu"
	"github.com/gpuhost/gpuhost/network"
)

// Planned is what would happen to one object and to the host because of it.
type Planned struct {
	Before *spec.Object // as stored; nil when it is new
	store.Applied
	Plan plan.Plan
}

// Preview says what writing these objects would change, without changing
// anything. No objects means: what the stored ones still call for.
//
// It takes lanes at rest at their word (rest.go) and looks at the host only for
// what they cannot know: what the imagined changes concern, and what is being
// worked at. [Loop.Verify] looks at everything.
func (l *Loop) Preview(ctx context.Context, objects []*spec.Object) ([]Planned, error) {
	return l.preview(ctx, objects, l.lanes.resting())
}

// preview trusts these lanes.
func (l *Loop) preview(ctx context.Context, objects []*spec.Object, trusted map[string]bool) ([]Planned, error) {
	before, err := l.Store.All()
	if err != nil {
		return nil, err
	}
	planned, after, err := l.imagine(ctx, before, objects)
	if err != nil {
		return nil, err
	}
	p := previewer{
		loop: l, world: l.imagined(after), trusted: trusted,
		shown: make(map[spec.UID]bool), wants: make(map[spec.UID]*network.VPC), routers: make(map[spec.UID]network.Have),
	}
	p.distrust(planned)
	views, err := p.look(ctx, planned)
	if err != nil {
		return nil, err
	}
	for i := range planned {
		if planned[i].Plan, err = p.plan(ctx, planned[i].Object, views[i]); err != nil {
			return nil, err
		}
	}
	return planned, nil
}

// imagine applies the objects to a copy of what is stored.
func (l *Loop) imagine(ctx context.Context, before, objects []*spec.Object) (planned []Planned, after []*spec.Object, err error) {
	if len(objects) == 0 {
		for _, o := range before {
			planned = append(planned, Planned{Before: o, Applied: store.Applied{Object: o, Change: store.Unchanged}})
		}
		return planned, before, nil
	}
	admission, err := l.admissionFor(ctx, objects, nil)
	if err != nil {
		return nil, nil, err
	}
	applied, err := l.Store.Apply(ctx, spec.SourceAPI, l.complete(admission, before, objects), store.ApplyOptions{
		DryRun: true,
		Check: func(all []*spec.Object) error {
			after = all
			return admission.Check(before, all)
		},
	})
	if err != nil {
		return nil, nil, err
	}
	stored := make(map[spec.UID]*spec.Object, len(before))
	for _, o := range before {
		stored[o.Metadata.UID] = o
	}
	for _, a := range applied {
		planned = append(planned, Planned{Before: stored[a.Object.Metadata.UID], Applied: a})
	}
	return planned, after, nil
}

// imagined is the world once every instance that would keep a place has one, and
// none that would not.
func (l *Loop) imagined(objects []*spec.Object) world {
	held := l.holders()
	for _, o := range objects {
		if !isInstance(o) {
			continue
		}
		record, err := l.Store.Record(o.Metadata.UID)
		if err != nil {
			continue
		}
		if decide(o, record, l.Now()).keeps() {
			held[o.Metadata.UID] = true
		} else {
			delete(held, o.Metadata.UID)
		}
	}
	return world{desired: indexed(objects), held: held, claims: l.drafting(), promised: make(map[gpu.UUID]drivers.Entry)}
}

// previewer plans object by object; what several share is read once and shown
// with the first.
type previewer struct {
	loop    *Loop
	world   world
	trusted map[string]bool           // lanes that need not be looked after
	shown   map[spec.UID]bool         // VPCs
	wants   map[spec.UID]*network.VPC // what each should hold
	routers map[spec.UID]network.Have // what each holds
	gpus    *drivers.Have             // nil until somebody asks
}

// distrust looks afresh at what the changes concern, and at the VPC of each
// instance that is looked at: its place there may be about to change.
func (p *previewer) distrust(planned []Planned) {
	for _, one := range planned {
		if one.Change == store.Unchanged {
			continue
		}
		for _, key := range p.world.concerned(one.Object) {
			delete(p.trusted, key)
		}
	}
	for _, o := range p.world.objects {
		if !isInstance(o) || p.trusted[laneOf(o)] {
			continue
		}
		for _, key := range p.world.concerned(o) {
			delete(p.trusted, key)
		}
	}
}

// lookers bounds how many instances are looked at side by side: what they wait
// for is mostly containerd.
func lookers() int { return 4 * runtime.GOMAXPROCS(0) }

// look reads what there is of the instances among the planned objects, in their
// order; nil for what need not be looked at. What they should be is decided one
// after the other, because one takes what another would.
func (p *previewer) look(ctx context.Context, planned []Planned) ([]*view, error) {
	views := make([]*view, len(planned))
	for i, one := range planned {
		if !isInstance(one.Object) || p.trusted[laneOf(one.Object)] {
			continue
		}
		var err error
		if views[i], err = p.intend(ctx, one.Object); err != nil {
			return nil, err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(lookers())
	for _, v := range views {
		if v != nil {
			group.Go(func() error { return p.loop.observe(ctx, v, p.world) })
		}
	}
	return views, group.Wait()
}

// intend decides what an instance should be and gives it its GPUs.
func (p *previewer) intend(ctx context.Context, o *spec.Object) (*view, error) {
	gpus, err := p.inventory(ctx)
	if err != nil {
		return nil, err
	}
	v, err := p.loop.intend(ctx, o, p.world, gpus)
	if err != nil {
		return nil, err
	}
	for _, d := range v.lease.GPUs {
		p.world.promised[d.UUID] = drivers.Entry{
			GPU: d.UUID, State: drivers.Assigned, Owner: o.Metadata.UID, Tenant: o.Metadata.Tenant, Name: o.Metadata.Name, BootID: gpus.BootID,
		}
	}
	v.net, err = p.router(ctx, v.at.vpc.Metadata.UID)
	return v, err
}

func (p *previewer) inventory(ctx context.Context) (drivers.Have, error) {
	if p.gpus == nil {
		have, err := p.loop.Drivers.Observe(ctx)
		if err != nil {
			return drivers.Have{}, err
		}
		p.gpus = &have
	}
	return *p.gpus, nil
}

// router is what a VPC holds, read once.
func (p *previewer) router(ctx context.Context, uid spec.UID) (network.Have, error) {
	if have, read := p.routers[uid]; read {
		return have, nil
	}
	have, err := p.loop.Network.Observe(ctx, uid)
	if err == nil {
		p.routers[uid] = have
	}
	return have, err
}

func (p *previewer) plan(ctx context.Context, o *spec.Object, v *view) (plan.Plan, error) {
	switch {
	case v != nil:
		return p.instance(ctx, v)
	case o.Kind == spec.KindNetwork:
		return p.vpc(ctx, o)
	case o.Kind == spec.KindSecurityGroup:
		return p.vpcs(ctx, o.Metadata.Tenant)
	default:
		return plan.Plan{}, nil
	}
}

// instance plans an instance with its VPC: its rules come before it, and go after.
func (p *previewer) instance(ctx context.Context, v *view) (plan.Plan, error) {
	shared, err := p.vpc(ctx, v.at.vpc)
	if err != nil {
		return plan.Plan{}, err
	}
	if !v.decision.keeps() {
		own, err := v.plan(p.loop.Network, p.loop.Now())
		if err != nil {
			return plan.Plan{}, err
		}
		return plan.Merge(own, shared).Ordered()
	}
	want, err := p.want(ctx, v.at.vpc)
	if err != nil {
		return plan.Plan{}, err
	}
	if want != nil {
		v.vpc = *want
	}
	own, err := v.plan(p.loop.Network, p.loop.Now())
	if err != nil {
		return plan.Plan{}, err
	}
	return plan.Merge(shared, own).Ordered()
}

// want is what a VPC should hold in the imagined world, drawn once. Addresses of
// instances that are new are chosen before.
func (p *previewer) want(ctx context.Context, o *spec.Object) (*network.VPC, error) {
	uid := o.Metadata.UID
	if want, drawn := p.wants[uid]; drawn {
		return want, nil
	}
	for _, in := range live(p.world.objects) {
		at, err := placeOf(in, p.world.find)
		if err != nil || at.vpc.Metadata.UID != uid || !p.world.held[in.Metadata.UID] {
			continue
		}
		if _, err := p.world.claims.address(ctx, in, at); err != nil {
			return nil, err
		}
	}
	want, err := p.loop.vpcIn(ctx, o, p.world)
	if err == nil {
		p.wants[uid] = want
	}
	return want, err
}

func (p *previewer) vpcs(ctx context.Context, tenant string) (plan.Plan, error) {
	var all plan.Plan
	for _, o := range p.world.objects {
		if o.Kind != spec.KindNetwork || o.Metadata.Tenant != tenant {
			continue
		}
		one, err := p.vpc(ctx, o)
		if err != nil {
			return plan.Plan{}, err
		}
		all = plan.Merge(all, one)
	}
	return all, nil
}

func (p *previewer) vpc(ctx context.Context, o *spec.Object) (plan.Plan, error) {
	if p.shown[o.Metadata.UID] || p.trusted[laneOf(o)] {
		return plan.Plan{}, nil
	}
	p.shown[o.Metadata.UID] = true
	want, err := p.want(ctx, o)
	if err != nil {
		return plan.Plan{}, err
	}
	have, err := p.router(ctx, o.Metadata.UID)
	if err != nil {
		return plan.Plan{}, err
	}
	return p.loop.Network.Plan(want, o.Metadata.UID, have)
}

// Deviation is one point in which an instance is not as wanted.
type Deviation struct {
	Object            spec.Ref
	What, Want, Found string
}

// Verify compares the host with what the instances among the objects want. It
// takes nobody at his word: everything is read from the kernel now.
func (l *Loop) Verify(ctx context.Context, objects []*spec.Object) ([]Deviation, error) {
	planned, err := l.preview(ctx, objects, nil)
	if err != nil {
		return nil, err
	}
	var out []Deviation
	for _, p := range planned {
		if p.Change != store.Unchanged {
			out = append(out, Deviation{Object: p.Object.Ref(), What: "specification", Want: "as given", Found: string(found(p))})
		}
		if len(objects) == 0 && !p.Plan.Empty() {
			l.doubt(p.Object)
		}
		for _, s := range p.Plan.Steps {
			out = append(out, Deviation{Object: p.Object.Ref(), What: s.Verb + " " + s.Title, Want: "nothing to do", Found: s.Why})
		}
	}
	return out, nil
}

// doubt has a plan look afresh at what a verification found to be otherwise. The
// lanes themselves find it at their next look.
func (l *Loop) doubt(o *spec.Object) {
	w, err := l.world()
	if err != nil {
		return
	}
	for _, key := range w.concerned(o) {
		l.lanes.disturb(key)
	}
}

func found(p Planned) string {
	if p.Before == nil {
		return "not stored"
	}
	return "stored otherwise"
}

// GPUs gives the inventory with the ledger.
func (l *Loop) GPUs(ctx context.Context) (drivers.Have, error) { return l.Drivers.Observe(ctx) }
