package reconcile

import (
	"context"
	"net/netip"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network"
)

// vpc is one run of a VPC's lane.
func (l *Loop) vpc(ctx context.Context, uid spec.UID) error {
	o, err := l.Store.GetUID(uid)
	if fault.Is(err, fault.NotFound) {
		l.lanes.forget(vpcLane + string(uid))
		return l.convergeVPC(ctx, uid, nil, l.changes.silent())
	}
	if err != nil {
		return err
	}
	rec := l.changes.recorder(o)
	want, err := l.bring(ctx, uid, rec)
	rec.finish(err)
	if ctx.Err() == nil {
		l.showNetwork(o, want, err)
	}
	return err
}

// bring makes a VPC what it should be now, and says what that is. The caller
// holds the VPC's lane, which is at rest afterwards.
func (l *Loop) bring(ctx context.Context, uid spec.UID, rec *recorder) (*network.VPC, error) {
	asked := l.lanes.begin(vpcLane + string(uid))
	o, err := l.Store.GetUID(uid)
	if err != nil {
		return nil, err
	}
	want, err := l.wantVPC(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := l.convergeVPC(ctx, uid, want, rec); err != nil {
		return nil, err
	}
	l.lanes.rest(vpcLane+string(uid), asked)
	return want, nil
}

// guard makes sure that the rules of an instance, and the host's own, are in force
// before anything of it exists, its guard too where the kernel can bind one ahead of its link; else
// attach makes it before the link comes up. The caller, the instance's lane, holds the
// VPC's lane; it is recorded with the instance.
func (l *Loop) guard(ctx context.Context, v *view, rec *recorder) error {
	uid := v.at.vpc.Metadata.UID
	want, err := l.bring(ctx, uid, rec)
	if err != nil {
		return err
	}
	if want == nil {
		return fault.New(fault.Internal, "guard "+v.object.Ref().String(), "its VPC holds no endpoint")
	}
	if err := l.guardHost(ctx); err != nil {
		return err
	}
	v.vpc = *want
	v.net, err = seen(l.Network.Observe(ctx, uid))
	return err
}

// convergeVPC brings one VPC's namespace and rules to want; nil removes it. The
// caller holds the VPC's lane.
func (l *Loop) convergeVPC(ctx context.Context, uid spec.UID, want *network.VPC, rec *recorder) error {
	began := l.Now()
	have, err := seen(l.Network.Observe(ctx, uid))
	if err != nil {
		return err
	}
	p, err := l.Network.Plan(want, uid, have)
	if err != nil || p.Empty() {
		return err
	}
	if err := l.noteMeters(ctx, uid, p, have); err != nil {
		return err
	}
	if err := l.apply(ctx, p, uid, rec); err != nil {
		l.lanes.disturb(vpcLane + string(uid)) // it was left half-way
		return err
	}
	if onlyRules(p) {
		l.Metrics.ObserveRules(l.Now().Sub(began))
	}
	l.lanes.trigger(laneHost) // addresses, ports and names may differ
	return nil
}

// onlyRules says whether a plan changes the rules of a network that is there.
func onlyRules(p plan.Plan) bool { return len(p.Steps) == 1 && p.Steps[0].Verb == network.VerbLoad }

// vpcIn is wantVPC in a given world.
func (l *Loop) vpcIn(ctx context.Context, o *spec.Object, w world) (*network.VPC, error) {
	claims, err := w.claims.taken(poolAddresses(o.Metadata.UID))
	if err != nil {
		return nil, err
	}
	endpoints, err := endpointsIn(w, claims, l.Settings.NetnsDir)
	if err != nil || len(endpoints) == 0 {
		return nil, err
	}
	transit, err := w.claims.transit(ctx, o)
	if err != nil {
		return nil, err
	}
	vpc, err := vpcOf(o, w.objects, transit, l.Settings.Protected(), endpoints)
	return &vpc, err
}

// endpointsIn are the instances that hold a place and have one of these addresses.
func endpointsIn(w world, claims map[string]spec.UID, netnsDir string) ([]network.Endpoint, error) {
	address := make(map[spec.UID]string, len(claims))
	for value, owner := range claims {
		address[owner] = value
	}
	var out []network.Endpoint
	for _, o := range w.objects {
		value, placed := address[o.Metadata.UID]
		if o.Kind != spec.KindInstance || !placed || !w.held[o.Metadata.UID] {
			continue
		}
		a, err := netip.ParseAddr(value)
		if err != nil {
			return nil, fault.Wrap(fault.Internal, "read the address of "+o.Ref().String(), err)
		}
		out = append(out, endpointOf(o, a, netnsDir))
	}
	return out, nil
}

// leave takes an instance's endpoint out of its VPC once nothing of it runs.
func (l *Loop) leave(ctx context.Context, v *view) error {
	uid := v.object.Metadata.UID
	if !l.holds(uid) {
		return nil
	}
	l.hold(uid, false)
	if err := l.lanes.do(ctx, vpcLane+string(v.at.vpc.Metadata.UID)); err != nil {
		l.hold(uid, true) // the next run leaves again
		return err
	}
	l.lanes.trigger(laneGPUs)
	return nil
}
