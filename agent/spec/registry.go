package spec

import "strings"

// Kinds lists all kinds of the contract, in the order in which they are shown
// and in which one may refer to the ones before it.
func Kinds() []Kind {
	return []Kind{
		KindHost, KindTenant, KindSecret, KindNetwork, KindNetworkACL, KindSubnet, KindSecurityGroup,
		KindVolume, KindInstance, KindFloatingIP, KindLoadBalancer,
	}
}

// NewSpec makes the empty specification of a kind, nil for an unknown one.
func NewSpec(k Kind) Spec {
	switch k {
	case KindHost:
		return &HostSpec{}
	case KindTenant:
		return &TenantSpec{}
	case KindInstance:
		return &InstanceSpec{}
	case KindSecret:
		return &SecretSpec{}
	case KindVolume:
		return &VolumeSpec{}
	case KindNetwork:
		return &NetworkSpec{}
	case KindSubnet:
		return &SubnetSpec{}
	case KindSecurityGroup:
		return &SecurityGroupSpec{}
	case KindNetworkACL:
		return &NetworkACLSpec{}
	case KindFloatingIP:
		return &FloatingIPSpec{}
	case KindLoadBalancer:
		return &LoadBalancerSpec{}
	}
	return nil
}

// Plural is the kind as a part of the API's paths: "securitygroups".
func (k Kind) Plural() string { return k.Lower() + "s" }

// Tenanted says whether objects of this kind belong to a tenant.
func (k Kind) Tenanted() bool { return k != KindHost && k != KindTenant }

// ParseKind finds a kind by its name in any case, singular or plural.
func ParseKind(text string) (Kind, bool) {
	for _, k := range Kinds() {
		if strings.EqualFold(text, string(k)) || strings.EqualFold(text, k.Plural()) {
			return k, true
		}
	}
	return "", false
}

func kindNames() []string {
	var names []string
	for _, k := range Kinds() {
		names = append(names, string(k))
	}
	return names
}

func kindList() string { return strings.Join(kindNames(), ", ") }
