package spec

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// ValidateSet checks what only the whole desired state of a host can tell:
// that everything named exists, that subnets and addresses do not overlap and
// that a port of the host is published once. It expects every object to have
// passed [Validate] and [Default].
func ValidateSet(desired []*Object) error { return ValidateChange(nil, desired) }

// ValidateChange is [ValidateSet] of after, where before passed it. An object
// that is the same pointer in both is not followed to what it names, unless
// something it may name is going: one changed rule must not cost a look at the
// hundred thousand others.
func ValidateChange(before, after []*Object) error {
	s := &set{objects: make(map[Ref]*Object, len(after))}
	for _, o := range after {
		if s.objects[o.Ref()] != nil {
			return fault.New(fault.Invalid, o.Ref().String(), "is there twice")
		}
		s.objects[o.Ref()] = o
	}
	if err := s.support(after); err != nil {
		return err
	}
	changed := s.unproved(before, after)
	if err := shares(before, after, changed); err != nil {
		return err
	}
	if err := s.references(changed); err != nil {
		return err
	}
	for _, check := range []func([]*Object) error{s.subnets, s.ports, s.addresses} {
		if err := check(after); err != nil {
			return err
		}
	}
	return nil
}

// unproved are the objects whose references have to be followed.
func (s *set) unproved(before, after []*Object) []*Object {
	same := make(map[*Object]bool, len(before))
	for _, o := range before {
		same[o] = true
		now := s.objects[o.Ref()]
		if now == nil || now.Metadata.DeletedAt != nil && o.Metadata.DeletedAt == nil || losesKeys(o, now) {
			return after
		}
	}
	var changed []*Object
	for _, o := range after {
		if !same[o] {
			changed = append(changed, o)
		}
	}
	return changed
}

// losesKeys says whether a secret has fewer keys than before.
func losesKeys(before, after *Object) bool {
	had, is := before.Spec.(*SecretSpec)
	if !is || before == after {
		return false
	}
	has := after.Spec.(*SecretSpec)
	for key := range had.Data {
		if _, there := has.Data[key]; !there {
			return true
		}
	}
	return false
}

// set answers questions about all objects at once.
type set struct {
	objects map[Ref]*Object
}

// field begins a fault about one field of o.
func field(kind fault.Kind, o *Object, path, format string, args ...any) *fault.Error {
	return fault.New(kind, o.Ref().String()+": "+path, format, args...)
}

func (s *set) support(desired []*Object) error {
	var c checker
	for _, o := range desired {
		c.supported(o)
		if c.first != nil {
			return field(c.first.kind, o, c.first.path, "%s", c.first.why)
		}
	}
	return nil
}

// references skips objects that are going away: what they named may go first.
func (s *set) references(desired []*Object) error {
	for _, o := range desired {
		if o.Metadata.DeletedAt != nil {
			continue
		}
		if err := s.referencesOf(o); err != nil {
			return err
		}
	}
	return nil
}

func (s *set) referencesOf(o *Object) error {
	if o.Kind.Tenanted() {
		if err := s.need(o, "metadata.tenant", KindTenant, o.Metadata.Tenant); err != nil {
			return err
		}
	}
	switch sp := o.Spec.(type) {
	case *SubnetSpec:
		return s.need(o, "spec.network", KindNetwork, sp.Network)
	case *SecurityGroupSpec:
		if err := s.groupRules(o, "spec.ingress", sp.Ingress); err != nil {
			return err
		}
		return s.groupRules(o, "spec.egress", sp.Egress)
	case *InstanceSpec:
		return s.instance(o, sp)
	}
	return nil
}

// need says that an object of the same tenant must be there and stay.
func (s *set) need(o *Object, path string, kind Kind, name string) error {
	ref := Ref{Kind: kind, Tenant: o.Metadata.Tenant, Name: name}
	if kind == KindTenant {
		ref.Tenant = ""
	}
	found := s.objects[ref]
	if found != nil && found.Metadata.DeletedAt == nil {
		return nil
	}
	if found != nil {
		return field(fault.Conflict, o, path, "%s is being deleted", ref)
	}
	err := field(fault.Invalid, o, path, "there is no %s", ref)
	if near := Nearest(name, s.names(kind, ref.Tenant)); near != "" {
		return err.WithHint("the nearest is %q", near)
	}
	return err
}

func (s *set) names(kind Kind, tenant string) []string {
	var names []string
	for ref := range s.objects {
		if ref.Kind == kind && ref.Tenant == tenant {
			names = append(names, ref.Name)
		}
	}
	slices.Sort(names)
	return names
}

func (s *set) groupRules(o *Object, path string, rules []Rule) error {
	for i := range rules {
		group, is := strings.CutPrefix(rules[i].Remote, GroupPrefix)
		if !is {
			continue
		}
		if err := s.need(o, indexed(path, i)+".remote", KindSecurityGroup, group); err != nil {
			return err
		}
	}
	return nil
}

func (s *set) instance(o *Object, sp *InstanceSpec) error {
	if err := s.need(o, "spec.network.subnet", KindSubnet, sp.Network.Subnet); err != nil {
		return err
	}
	for i, group := range sp.Network.SecurityGroups {
		if err := s.need(o, indexed("spec.network.securityGroups", i), KindSecurityGroup, group); err != nil {
			return err
		}
	}
	if sp.PullSecret != "" {
		if err := s.need(o, "spec.pullSecret", KindSecret, sp.PullSecret); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(sp.Env)) {
		if err := s.envSecret(o, "spec.env."+name, sp.Env[name]); err != nil {
			return err
		}
	}
	return nil
}

func (s *set) envSecret(o *Object, path string, value EnvValue) error {
	if value.Secret == "" {
		return nil
	}
	name, key := value.SecretKey()
	if err := s.need(o, path, KindSecret, name); err != nil {
		return err
	}
	ref := Ref{Kind: KindSecret, Tenant: o.Metadata.Tenant, Name: name}
	if _, there := s.objects[ref].Spec.(*SecretSpec).Data[key]; !there {
		return field(fault.Invalid, o, path, "%s has no key %q", ref, key)
	}
	return nil
}

// placed is a subnet with its parsed network.
type placed struct {
	object *Object
	prefix netip.Prefix
}

// subnets sorts the subnets of each network by address: only neighbours can
// then overlap.
func (s *set) subnets(desired []*Object) error {
	byNetwork := map[Ref][]placed{}
	for _, o := range desired {
		sp, is := o.Spec.(*SubnetSpec)
		if !is {
			continue
		}
		network := Ref{Kind: KindNetwork, Tenant: o.Metadata.Tenant, Name: sp.Network}
		prefix, err := netip.ParsePrefix(sp.CIDR)
		if err != nil {
			return field(fault.Invalid, o, "spec.cidr", "%w", err)
		}
		if outer, ok := s.cidrOf(network); ok && !contains(outer, prefix) {
			return field(fault.Invalid, o, "spec.cidr", "%s is not inside %s of %s", prefix, outer, network)
		}
		byNetwork[network] = append(byNetwork[network], placed{o, prefix})
	}
	for _, network := range slices.SortedFunc(maps.Keys(byNetwork), compareRefs) {
		if err := overlapping(byNetwork[network]); err != nil {
			return err
		}
	}
	return nil
}

func overlapping(list []placed) error {
	slices.SortFunc(list, func(a, b placed) int { return a.prefix.Compare(b.prefix) })
	for i := 1; i < len(list); i++ {
		if a, b := list[i-1], list[i]; a.prefix.Overlaps(b.prefix) {
			return field(fault.Invalid, b.object, "spec.cidr", "%s overlaps %s of %s", b.prefix, a.prefix, a.object.Ref())
		}
	}
	return nil
}

func (s *set) cidrOf(network Ref) (netip.Prefix, bool) {
	o := s.objects[network]
	if o == nil {
		return netip.Prefix{}, false
	}
	prefix, err := netip.ParsePrefix(o.Spec.(*NetworkSpec).CIDR)
	return prefix, err == nil
}

func contains(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// ports gives each of the host's ports to one instance: the one that is there
// longer, so that it is the newcomer who is told. Another tenant's name is not.
func (s *set) ports(desired []*Object) error {
	owners := map[Publish]*Object{}
	byAge := slices.Clone(desired)
	slices.SortStableFunc(byAge, func(x, y *Object) int { return x.Metadata.CreatedAt.Compare(y.Metadata.CreatedAt) })
	for _, o := range byAge {
		sp, is := o.Spec.(*InstanceSpec)
		if !is {
			continue
		}
		for i, p := range sp.Publish {
			host := Publish{HostPort: p.HostPort, Protocol: p.Protocol}
			if owner := owners[host]; owner != nil {
				return field(fault.Conflict, o, indexed("spec.publish", i), "the host's port %d/%s is already published by %s",
					p.HostPort, p.Protocol, nameFor(o, owner)).WithHint("choose another port of the host")
			}
			owners[host] = o
		}
	}
	return nil
}

func nameFor(reader, owner *Object) string {
	if reader.Metadata.Tenant == owner.Metadata.Tenant {
		return owner.Ref().String()
	}
	return "another tenant"
}

// addresses checks the fixed addresses of instances: inside their subnet, not
// its first or last, and each given once within its network.
func (s *set) addresses(desired []*Object) error {
	type place struct {
		network Ref
		address netip.Addr
	}
	owners := map[place]*Object{}
	for _, o := range desired {
		sp, is := o.Spec.(*InstanceSpec)
		if !is || sp.Network.Address == "" || o.Metadata.DeletedAt != nil {
			continue
		}
		network, address, err := s.addressOf(o, sp)
		if err != nil {
			return err
		}
		at := place{network, address}
		if owner := owners[at]; owner != nil {
			return field(fault.Conflict, o, "spec.network.address", "%s is the address of %s", address, owner.Ref())
		}
		owners[at] = o
	}
	return nil
}

func (s *set) addressOf(o *Object, sp *InstanceSpec) (Ref, netip.Addr, error) {
	const path = "spec.network.address"
	address, err := netip.ParseAddr(sp.Network.Address)
	if err != nil {
		return Ref{}, address, field(fault.Invalid, o, path, "%w", err)
	}
	subnet := s.objects[Ref{Kind: KindSubnet, Tenant: o.Metadata.Tenant, Name: sp.Network.Subnet}]
	ss := subnet.Spec.(*SubnetSpec)
	prefix, err := netip.ParsePrefix(ss.CIDR)
	switch {
	case err != nil:
		return Ref{}, address, field(fault.Invalid, subnet, "spec.cidr", "%w", err)
	case !prefix.Contains(address):
		return Ref{}, address, field(fault.Invalid, o, path, "%s is not inside %s of %s", address, prefix, subnet.Ref())
	case address == prefix.Addr() || !prefix.Contains(address.Next()):
		return Ref{}, address, field(fault.Invalid, o, path, "%s is the first or last of %s, which stay free", address, prefix)
	}
	return Ref{Kind: KindNetwork, Tenant: o.Metadata.Tenant, Name: ss.Network}, address, nil
}

func compareRefs(a, b Ref) int { return strings.Compare(a.key(), b.key()) }

// key orders references by kind, tenant and name.
func (r Ref) key() string { return fmt.Sprintf("%s/%s/%s", r.Kind, r.Tenant, r.Name) }
