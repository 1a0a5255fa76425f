package spec

import (
	"net/netip"
	"time"
)

// HostName is the name of the only Host object.
const HostName = "this"

// DefaultName is what a tenant's first network, subnet and group are called.
const DefaultName = "default"

// What happens with a GPU that cannot be reset between tenants.
const (
	HandoverQuarantine = "quarantine"
	HandoverAllow      = "allow"
)

// Default fills in what the contract promises for fields left out. Doing it
// twice is doing it once. Resources of instances stay zero: their defaults
// depend on the host.
func Default(o *Object) {
	o.APIVersion = APIVersion
	switch s := o.Spec.(type) {
	case *HostSpec:
		setDefault(&o.Metadata.Name, HostName)
		setDefault(&s.Overcommit.CPU, 1)
		setDefault(&s.Handover.WithoutReset, HandoverQuarantine)
	case *InstanceSpec:
		s.setDefaults()
	case *SubnetSpec:
		setDefault(&s.Network, DefaultName)
	}
}

func (s *InstanceSpec) setDefaults() {
	setDefault(&s.PullPolicy, PullMissing)
	setDefault(&s.State, StateRunning)
	setDefault(&s.Restart, RestartOnFailure)
	setDefault(&s.Isolation, TierContainer)
	setDefault(&s.StopGrace, Duration(30*time.Second))
	setDefault(&s.Network.Subnet, DefaultName)
	if len(s.Network.SecurityGroups) == 0 {
		s.Network.SecurityGroups = []string{DefaultName}
	}
	if s.GPUs.Model != "" || s.GPUs.MIG != "" {
		setDefault(&s.GPUs.Count, 1)
	}
	for i := range s.Publish {
		setDefault(&s.Publish[i].Protocol, ProtocolTCP)
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// The addresses of a tenant that chose none.
const (
	defaultNetworkCIDR = "10.0.0.0/16"
	defaultSubnetCIDR  = "10.0.1.0/24"
)

// DefaultsForTenant are the objects a tenant starts with: itself, and a
// network, subnet and security group named default. The group lets in only its
// own members and lets everything out. A file or the API may take them over.
func DefaultsForTenant(tenant string) []*Object {
	own := func(s Spec) *Object { return newDefault(Metadata{Tenant: tenant, Name: DefaultName}, s) }
	return []*Object{
		newDefault(Metadata{Name: tenant}, &TenantSpec{}),
		own(&NetworkSpec{CIDR: defaultNetworkCIDR}),
		own(&SubnetSpec{Network: DefaultName, CIDR: defaultSubnetCIDR}),
		own(&SecurityGroupSpec{
			Ingress: []Rule{{Action: ActionAccept, Protocol: ProtocolAll, Remote: GroupPrefix + DefaultName}},
			Egress:  []Rule{{Action: ActionAccept, Protocol: ProtocolAll, Remote: "0.0.0.0/0"}},
		}),
	}
}

func newDefault(m Metadata, s Spec) *Object {
	m.Source = SourceDefault
	return &Object{APIVersion: APIVersion, Kind: s.Kind(), Metadata: m, Spec: s}
}

// MissingDefaults gives the default objects that desired needs and does not
// hold: the tenant of every object, and the default network, subnet and group
// of every tenant whose instances name them. A default subnet is laid into the
// tenant's own default network where there is one.
func MissingDefaults(desired []*Object) []*Object {
	have := make(map[Ref]*Object, len(desired))
	for _, o := range desired {
		have[o.Ref()] = o
	}
	var missing []*Object
	need := func(o *Object) {
		if have[o.Ref()] == nil {
			have[o.Ref()] = o
			missing = append(missing, o)
		}
	}
	for _, o := range desired {
		if o.Kind.Tenanted() && o.Metadata.Tenant != "" {
			defaults := DefaultsForTenant(o.Metadata.Tenant)
			need(defaults[0])
			needInstanceDefaults(o, defaults[1:], have, need)
		}
	}
	return missing
}

func needInstanceDefaults(o *Object, defaults []*Object, have map[Ref]*Object, need func(*Object)) {
	s, is := o.Spec.(*InstanceSpec)
	if !is {
		return
	}
	network, subnet, group := defaults[0], defaults[1], defaults[2]
	if s.Network.Subnet == "" || s.Network.Subnet == DefaultName {
		if have[subnet.Ref()] == nil {
			need(network)
			subnet.Spec.(*SubnetSpec).CIDR = subnetOf(have[network.Ref()])
		}
		need(subnet)
	}
	need(group)
}

// subnetOf is the second /24 of a network, or all of a network too small for two.
func subnetOf(network *Object) string {
	s, is := network.Spec.(*NetworkSpec)
	if !is {
		return defaultSubnetCIDR
	}
	prefix, err := netip.ParsePrefix(s.CIDR)
	if err != nil || !prefix.Addr().Is4() || prefix.Bits() > 23 {
		return s.CIDR
	}
	address := prefix.Masked().Addr().As4()
	address[2]++
	return netip.PrefixFrom(netip.AddrFrom4(address), 24).String()
}
