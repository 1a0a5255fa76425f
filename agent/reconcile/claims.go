package reconcile

import (
	"context"
	"maps"
	"net/netip"
	"strconv"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
)

// Pools of the journal. Each value belongs to one owner's uid.
const (
	poolRanges  = "uid-range" // owner: the tenant
	poolTransit = "transit"   // owner: the network
)

// poolAddresses is the pool of one VPC's addresses; owner: the instance.
func poolAddresses(vpc spec.UID) string { return "address/" + string(vpc) }

// claimer gives owners their values of the pools. The loop's own commits each
// choice before anything is made from it; a preview's keeps its choices to
// itself.
type claimer struct {
	loop   *Loop
	drafts map[string]map[string]spec.UID // of a preview; nil commits
}

func (l *Loop) committing() *claimer { return &claimer{loop: l} }

func (l *Loop) drafting() *claimer {
	return &claimer{loop: l, drafts: make(map[string]map[string]spec.UID)}
}

func (c *claimer) commits() bool { return c.drafts == nil }

// taken is who has what in a pool, drafts included.
func (c *claimer) taken(pool string) (map[string]spec.UID, error) {
	claims, err := c.loop.Store.Claims(pool)
	if err != nil || c.commits() {
		return claims, err
	}
	all := maps.Clone(c.drafts[pool])
	if all == nil {
		all = make(map[string]spec.UID)
	}
	maps.Copy(all, claims)
	return all, nil
}

// valueOf is what owner has of a pool, drafts included.
func (c *claimer) valueOf(pool string, owner spec.UID) (string, bool) {
	if value, has := c.loop.Store.ClaimOf(pool, owner); has {
		return value, true
	}
	for value, who := range c.drafts[pool] {
		if who == owner {
			return value, true
		}
	}
	return "", false
}

// claim gives owner's value of the pool, choosing one with pick if it has none.
// Another lane's claim in between shows as a conflict and is answered by
// choosing again.
func (c *claimer) claim(ctx context.Context, pool string, owner spec.UID, pick func(taken func(string) bool) (string, error)) (string, error) {
	for {
		if value, has := c.valueOf(pool, owner); has {
			return value, nil
		}
		claims, err := c.taken(pool)
		if err != nil {
			return "", err
		}
		value, err := pick(func(v string) bool { _, taken := claims[v]; return taken })
		if err != nil {
			return "", err
		}
		if !c.commits() {
			c.draft(pool, value, owner)
			return value, nil
		}
		err = c.loop.Store.Claim(ctx, pool, value, owner)
		if !fault.Is(err, fault.Conflict) {
			return value, err
		}
	}
}

func (c *claimer) draft(pool, value string, owner spec.UID) {
	if c.drafts[pool] == nil {
		c.drafts[pool] = make(map[string]spec.UID)
	}
	c.drafts[pool][value] = owner
}

// ids gives the tenant's uid range.
func (c *claimer) ids(ctx context.Context, tenant *spec.Object) (isolation.IDRange, error) {
	value, err := c.claim(ctx, poolRanges, tenant.Metadata.UID, func(taken func(string) bool) (string, error) {
		r, err := pickRange(c.loop.Settings.UIDStart, c.loop.Settings.UIDSize, taken)
		return rangeValue(r), err
	})
	if err != nil {
		return isolation.IDRange{}, err
	}
	start, err := strconv.ParseUint(value, 10, 32)
	if err != nil {
		return isolation.IDRange{}, fault.Wrap(fault.Internal, "read the uid range of tenant "+tenant.Metadata.Name, err)
	}
	return isolation.IDRange{Start: uint32(start), Size: rangeSize}, nil
}

// address gives the instance's address in its subnet: the one it has, the one it
// asks for, or the first free.
func (c *claimer) address(ctx context.Context, o *spec.Object, at place) (netip.Addr, error) {
	value, err := c.claim(ctx, poolAddresses(at.vpc.Metadata.UID), o.Metadata.UID, func(taken func(string) bool) (string, error) {
		if asked := instanceOf(o).Network.Address; asked != "" {
			return askedAddress(o.Ref(), asked, at.subnet, taken)
		}
		a, err := pickAddress(at.subnet, func(a netip.Addr) bool { return taken(a.String()) })
		return a.String(), err
	})
	if err != nil {
		return netip.Addr{}, err
	}
	return netip.ParseAddr(value)
}

// addressFor gives an instance that is to run its address. One that goes has the
// address it had, or none: nothing may keep it from going.
func (c *claimer) addressFor(ctx context.Context, v *view) (netip.Addr, error) {
	if v.decision.keeps() {
		return c.address(ctx, v.object, v.at)
	}
	value, has := c.valueOf(poolAddresses(v.at.vpc.Metadata.UID), v.object.Metadata.UID)
	if !has {
		return netip.Addr{}, nil
	}
	return netip.ParseAddr(value)
}

func askedAddress(ref spec.Ref, asked string, subnet netip.Prefix, taken func(string) bool) (string, error) {
	a, err := netip.ParseAddr(asked)
	what := "give " + ref.String() + " the address " + asked
	switch {
	case err != nil:
		return "", fault.Wrap(fault.Invalid, what, err)
	case !usable(subnet, a):
		return "", fault.New(fault.Invalid, what, "it is no usable address of subnet %s", subnet)
	case taken(a.String()):
		return "", fault.New(fault.Conflict, what, "another instance has it").WithHint("gpuhost get instances -o wide")
	}
	return a.String(), nil
}

// transit gives the VPC's link to the host.
func (c *claimer) transit(ctx context.Context, vpc *spec.Object) (netip.Prefix, error) {
	value, err := c.claim(ctx, poolTransit, vpc.Metadata.UID, func(taken func(string) bool) (string, error) {
		link, err := pickTransit(c.loop.Settings.TransitPool, taken)
		return link.String(), err
	})
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.ParsePrefix(value)
}

// place is where an instance lives: its VPC and the range of its subnet.
type place struct {
	vpc    *spec.Object
	subnet netip.Prefix
}

// placeOf follows an instance's subnet to its VPC through find.
func placeOf(o *spec.Object, find func(spec.Ref) (*spec.Object, error)) (place, error) {
	subnet, err := find(spec.Ref{Kind: spec.KindSubnet, Tenant: o.Metadata.Tenant, Name: instanceOf(o).Network.Subnet})
	if err != nil {
		return place{}, err
	}
	in := subnet.Spec.(*spec.SubnetSpec)
	cidr, err := netip.ParsePrefix(in.CIDR)
	if err != nil {
		return place{}, fault.Wrap(fault.Internal, "read the CIDR of "+subnet.Ref().String(), err)
	}
	vpc, err := find(spec.Ref{Kind: spec.KindNetwork, Tenant: o.Metadata.Tenant, Name: in.Network})
	return place{vpc: vpc, subnet: cidr}, err
}

func (l *Loop) vpcObject(o *spec.Object) (*spec.Object, error) {
	at, err := placeOf(o, l.Store.Get)
	return at.vpc, err
}
