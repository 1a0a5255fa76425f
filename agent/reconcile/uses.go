package reconcile

import (
	"slices"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// What stands on what: an object stays as long as another needs it.

// refuseUsed keeps what others that are to stay stand on.
func (l *Loop) refuseUsed(ref spec.Ref) error {
	used, err := l.usedBy(ref, func(o *spec.Object) bool { return o.Metadata.DeletedAt == nil })
	if err != nil || used == nil {
		return err
	}
	return usedFault(ref, used)
}

func usedFault(ref spec.Ref, by *spec.Object) error {
	return fault.New(fault.Busy, "delete "+ref.String(), "%s uses it", by.Ref()).
		WithHint("gpuhost delete %s %s first", by.Kind.Lower(), by.Metadata.Name)
}

// usedBy finds an object, among those that count, which stands on what ref names.
func (l *Loop) usedBy(ref spec.Ref, counts func(*spec.Object) bool) (*spec.Object, error) {
	objects, err := l.Store.All()
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		if counts(o) && uses(o, ref) {
			return o, nil
		}
	}
	return nil, nil
}

// uses says whether o cannot be without what ref names.
func uses(o *spec.Object, ref spec.Ref) bool {
	if ref.Kind == spec.KindTenant {
		return o.Kind == spec.KindInstance && o.Metadata.Tenant == ref.Name
	}
	if o.Metadata.Tenant != ref.Tenant {
		return false
	}
	switch in := o.Spec.(type) {
	case *spec.InstanceSpec:
		return ref.Kind == spec.KindSubnet && in.Network.Subnet == ref.Name ||
			ref.Kind == spec.KindSecurityGroup && slices.Contains(in.Network.SecurityGroups, ref.Name) ||
			ref.Kind == spec.KindSecret && usesSecret(in, ref.Name)
	case *spec.SubnetSpec:
		return ref.Kind == spec.KindNetwork && in.Network == ref.Name
	case *spec.SecurityGroupSpec:
		return ref.Kind == spec.KindSecurityGroup && o.Metadata.Name != ref.Name && namesGroup(in, ref.Name)
	default:
		return false
	}
}

func namesGroup(in *spec.SecurityGroupSpec, name string) bool {
	return slices.ContainsFunc(slices.Concat(in.Ingress, in.Egress), func(r spec.Rule) bool {
		return r.Remote == spec.GroupPrefix+name
	})
}

func usesSecret(in *spec.InstanceSpec, name string) bool {
	if in.PullSecret == name {
		return true
	}
	for _, v := range in.Env {
		if secret, _ := v.SecretKey(); secret == name {
			return true
		}
	}
	return false
}
