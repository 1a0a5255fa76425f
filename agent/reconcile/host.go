package reconcile

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/network"
)

// host is one run of the lane of what all instances share.
func (l *Loop) host(ctx context.Context) error {
	var vpcs []network.VPC
	var troubles error
	err := l.lanes.with(ctx, laneGuard, func(ctx context.Context) error {
		vpcs, troubles = l.hostVPCs(ctx)
		if err := l.Shared.Guard(ctx, vpcs); err != nil {
			return err
		}
		return l.Shared.Publish(ctx, vpcs)
	})
	return errors.Join(troubles, err, l.Shared.Name(ctx, vpcs))
}

// guardHost brings in force what keeps tenants apart on the host. What they publish
// there, how they are called, and what is wrong with another VPC does not matter.
func (l *Loop) guardHost(ctx context.Context) error {
	return l.lanes.with(ctx, laneGuard, func(ctx context.Context) error {
		vpcs, _ := l.hostVPCs(ctx) // the host's lane tells of the others' troubles
		return l.Shared.Guard(ctx, vpcs)
	})
}

// provenHost proves that the host keeps tenants apart. Where it does not it is
// brought there first: a change may have been under way, or somebody tampered. The
// caller holds the guard's lane.
func (l *Loop) provenHost(ctx context.Context) (spec.Control, error) {
	vpcs, _ := l.hostVPCs(ctx)
	c, err := l.Shared.Prove(ctx, vpcs)
	if err != nil || c.Pass {
		return c, err
	}
	l.Log.Warn("the host's table was not as wanted", "found", c.Found)
	l.lanes.trigger(laneHost) // what it publishes may be gone, too
	if err := l.Shared.Guard(ctx, vpcs); err != nil {
		return c, err
	}
	return l.Shared.Prove(ctx, vpcs)
}

// hostVPCs are the VPCs that the host has to do with. One that is in trouble has at
// least its link there, which stays guarded; the error says what the trouble is.
func (l *Loop) hostVPCs(ctx context.Context) ([]network.VPC, error) {
	networks, err := l.Store.List(spec.KindNetwork, "")
	if err != nil {
		return nil, err
	}
	var vpcs []network.VPC
	var troubles []error
	for _, o := range networks {
		want, err := l.wantVPC(ctx, o)
		if err != nil {
			troubles = append(troubles, err)
			want = l.linkedVPC(o)
		}
		if want != nil {
			vpcs = append(vpcs, *want)
		}
	}
	return vpcs, errors.Join(troubles...)
}

// linkedVPC is a VPC of which only its link to the host is known; nil where it has
// none.
func (l *Loop) linkedVPC(o *spec.Object) *network.VPC {
	value, has := l.Store.ClaimOf(poolTransit, o.Metadata.UID)
	link, err := netip.ParsePrefix(value)
	if !has || err != nil {
		return nil
	}
	return &network.VPC{UID: o.Metadata.UID, Tenant: o.Metadata.Tenant, Name: o.Metadata.Name, Transit: transitOf(link)}
}

// sweep looks for what carries our mark and is no longer stored: a crash between
// the last step of a removal and its note, or a state file that was restored.
func (l *Loop) sweep(ctx context.Context) error {
	if err := l.sweepObjects(); err != nil {
		return err
	}
	marked, err := l.Shared.Marked(ctx)
	if err != nil {
		return err
	}
	errs := []error{l.Shared.DropLogs(ctx, func(uid spec.UID) bool {
		_, err := l.Store.GetUID(uid)
		return !fault.Is(err, fault.NotFound)
	})}
	for uid, tenant := range marked.Instances {
		if _, err := l.Store.GetUID(uid); fault.Is(err, fault.NotFound) {
			errs = append(errs, l.sweepInstance(ctx, uid, tenant))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	// Their networks go last: a default-deny outlives what it denies.
	for _, uid := range marked.VPCs {
		if _, err := l.Store.GetUID(uid); fault.Is(err, fault.NotFound) {
			l.lanes.trigger(vpcLane + string(uid))
		}
	}
	return nil
}

// sweepObjects drops what is to go and had users when that was asked for.
func (l *Loop) sweepObjects() error {
	objects, err := l.Store.All()
	if err != nil {
		return err
	}
	for _, o := range objects {
		if o.Metadata.DeletedAt == nil || o.Kind == spec.KindInstance || o.Kind == spec.KindTenant {
			continue
		}
		if err := l.sweepObject(o); err != nil {
			return err
		}
	}
	return nil
}

// sweepInstance takes away an instance that nobody knows any more.
func (l *Loop) sweepInstance(ctx context.Context, uid spec.UID, tenant string) error {
	return l.lanes.with(ctx, instanceLane+string(uid), func(ctx context.Context) error {
		lease := isolation.Lease{UID: uid, Tenant: tenant, Name: string(uid), Want: isolation.WantAbsent}
		have, err := l.Isolation.Observe(ctx, lease)
		if err != nil {
			return err
		}
		l.Log.Warn("an instance that is not stored is taken away", "uid", string(uid), "tenant", tenant)
		if err := l.apply(ctx, isolation.Plan(lease, have, l.Now()), "", l.changes.silent()); err != nil {
			return err
		}
		l.hold(uid, false)
		l.mu.Lock()
		delete(l.strange, uid)
		l.mu.Unlock()
		l.lanes.trigger(laneGPUs)
		l.wakeWaiting()
		return nil
	})
}

// tenant is one run of a tenant's lane: it does nothing until the tenant is
// deleted and its last instance is gone, and then takes everything away. The
// uid range is released last of all, when no file of it is left.
func (l *Loop) tenant(ctx context.Context, uid spec.UID) error {
	o, err := l.Store.GetUID(uid)
	if fault.Is(err, fault.NotFound) {
		l.changes.gone(uid)
		l.lanes.forget(tenantLane + string(uid))
		return nil
	}
	if err != nil || o.Metadata.DeletedAt == nil {
		return err
	}
	owned, err := l.owned(o.Metadata.Name)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(owned, isInstance) {
		return nil // the last of them to vanish wakes this lane
	}
	rec := l.changes.recorder(o)
	err = l.removeTenant(ctx, o, owned)
	rec.finish(err)
	return err
}

func isInstance(o *spec.Object) bool { return o.Kind == spec.KindInstance }

func (l *Loop) removeTenant(ctx context.Context, o *spec.Object, owned []*spec.Object) error {
	if err := l.Shared.RemoveTenant(ctx, o.Metadata.Name); err != nil {
		return err
	}
	for _, other := range owned {
		if err := l.removeObject(ctx, other); err != nil {
			return err
		}
	}
	return l.forgetObject(o)
}

// removeObject takes an object that is no instance off the host and out of the
// store.
func (l *Loop) removeObject(ctx context.Context, o *spec.Object) error {
	if o.Kind == spec.KindNetwork {
		err := l.lanes.with(ctx, vpcLane+string(o.Metadata.UID), func(ctx context.Context) error {
			return l.convergeVPC(ctx, o.Metadata.UID, nil, l.changes.silent())
		})
		if err != nil {
			return err
		}
	}
	return l.forgetObject(o)
}

// forgetObject releases what an object claimed and drops it.
func (l *Loop) forgetObject(o *spec.Object) error {
	if err := l.Store.ReleaseAll(o.Metadata.UID); err != nil {
		return err
	}
	return l.Store.Remove(o.Metadata.UID)
}

// owned lists everything a tenant has.
func (l *Loop) owned(tenant string) ([]*spec.Object, error) {
	objects, err := l.Store.All()
	if err != nil {
		return nil, err
	}
	var out []*spec.Object
	for _, o := range objects {
		if o.Metadata.Tenant == tenant {
			out = append(out, o)
		}
	}
	return out, nil
}
