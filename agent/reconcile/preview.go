package reconcile

import (
	"context"
	"maps"

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
func (l *Loop) Preview(ctx context.Context, objects []*spec.Object) ([]Planned, error) {
	before, err := l.Store.All()
	if err != nil {
		return nil, err
	}
	planned, after, err := l.imagine(ctx, before, objects)
	if err != nil {
		return nil, err
	}
	p := previewer{loop: l, world: l.imagined(after), shown: make(map[spec.UID]bool), wants: make(map[spec.UID]*network.VPC)}
	for i := range planned {
		if planned[i].Plan, err = p.plan(ctx, planned[i].Object); err != nil {
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

// imagined is the world once every instance that would keep a place has one.
func (l *Loop) imagined(objects []*spec.Object) world {
	held := maps.Clone(l.holders())
	for _, o := range live(objects) {
		record, err := l.Store.Record(o.Metadata.UID)
		if err == nil && decide(o, record, l.Now()).keeps() {
			held[o.Metadata.UID] = true
		}
	}
	return world{objects: objects, held: held, claims: l.drafting(), promised: make(map[gpu.UUID]drivers.Entry)}
}

// previewer plans object by object; what several share is shown with the first.
type previewer struct {
	loop  *Loop
	world world
	shown map[spec.UID]bool         // VPCs
	wants map[spec.UID]*network.VPC // what each should hold
}

func (p *previewer) plan(ctx context.Context, o *spec.Object) (plan.Plan, error) {
	switch o.Kind {
	case spec.KindInstance:
		return p.instance(ctx, o)
	case spec.KindNetwork:
		return p.vpc(ctx, o)
	case spec.KindSecurityGroup:
		return p.vpcs(ctx, o.Metadata.Tenant)
	default:
		return plan.Plan{}, nil
	}
}

func (p *previewer) instance(ctx context.Context, o *spec.Object) (plan.Plan, error) {
	v, err := p.loop.look(ctx, o, p.world)
	if err != nil {
		return plan.Plan{}, err
	}
	var shared plan.Plan
	if v.decision.keeps() {
		if shared, err = p.vpc(ctx, v.at.vpc); err != nil {
			return plan.Plan{}, err
		}
		want, err := p.want(ctx, v.at.vpc)
		if err != nil {
			return plan.Plan{}, err
		}
		v.vpc = *want
	}
	for _, d := range v.lease.GPUs {
		p.world.promised[d.UUID] = drivers.Entry{
			GPU: d.UUID, State: drivers.Assigned, Owner: o.Metadata.UID, Tenant: o.Metadata.Tenant, Name: o.Metadata.Name, BootID: v.gpus.BootID,
		}
	}
	own, err := v.plan(p.loop.Network, p.loop.Now())
	if err != nil {
		return plan.Plan{}, err
	}
	return plan.Merge(shared, own).Ordered()
}

// want is what a VPC should hold in the imagined world, drawn once.
func (p *previewer) want(ctx context.Context, o *spec.Object) (*network.VPC, error) {
	uid := o.Metadata.UID
	if want, drawn := p.wants[uid]; drawn {
		return want, nil
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
	if p.shown[o.Metadata.UID] {
		return plan.Plan{}, nil
	}
	p.shown[o.Metadata.UID] = true
	// Addresses of instances that are new are chosen before the VPC is drawn.
	for _, in := range live(p.world.objects) {
		at, err := placeOf(in, p.world.find)
		if err != nil || at.vpc.Metadata.UID != o.Metadata.UID || !p.world.held[in.Metadata.UID] {
			continue
		}
		if _, err := p.world.claims.address(ctx, in, at); err != nil {
			return plan.Plan{}, err
		}
	}
	want, err := p.want(ctx, o)
	if err != nil {
		return plan.Plan{}, err
	}
	have, err := p.loop.Network.Observe(ctx, o.Metadata.UID)
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

// Verify compares the host with what the instances among the objects want.
func (l *Loop) Verify(ctx context.Context, objects []*spec.Object) ([]Deviation, error) {
	planned, err := l.Preview(ctx, objects)
	if err != nil {
		return nil, err
	}
	var out []Deviation
	for _, p := range planned {
		if p.Change != store.Unchanged {
			out = append(out, Deviation{Object: p.Object.Ref(), What: "specification", Want: "as given", Found: string(found(p))})
		}
		for _, s := range p.Plan.Steps {
			out = append(out, Deviation{Object: p.Object.Ref(), What: s.Verb + " " + s.Title, Want: "nothing to do", Found: s.Why})
		}
	}
	return out, nil
}

func found(p Planned) string {
	if p.Before == nil {
		return "not stored"
	}
	return "stored otherwise"
}

// GPUs gives the inventory with the ledger.
func (l *Loop) GPUs(ctx context.Context) (drivers.Have, error) { return l.Drivers.Observe(ctx) }
