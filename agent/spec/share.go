package spec

import (
	"slices"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// What the objects of one tenant take of the agent's memory and state file at
// most. A hundred thousand rules in a thousand groups are 13 MiB.
const (
	maxObjects = 10_000
	maxShare   = 64 << 20
)

// share is what some objects take, in about the bytes of their JSON.
type share struct {
	objects int
	bytes   Bytes
}

func shareOf(objects []*Object, tenant string) share {
	var s share
	for _, o := range objects {
		if o.Metadata.Tenant == tenant && o.Metadata.DeletedAt == nil {
			s.objects++
			s.bytes += weight(o)
		}
	}
	return s
}

// Bytes of what has no text of its own: an object's frame, and a rule, whose text
// is not looked at, because this is asked at every write.
const (
	frameWeight = 512
	ruleWeight  = 128
)

func weight(o *Object) Bytes {
	n := frameWeight + textsOf(o.Metadata.Labels)
	switch sp := o.Spec.(type) {
	case *SecurityGroupSpec:
		n += ruleWeight * (len(sp.Ingress) + len(sp.Egress))
	case *NetworkACLSpec:
		n += ruleWeight * (len(sp.Ingress) + len(sp.Egress))
	case *SecretSpec:
		n += textsOf(sp.Data)
	case *InstanceSpec:
		n += len(sp.UserData)
		for _, text := range slices.Concat(sp.Command, sp.SSHKeys) {
			n += len(text)
		}
		for key, value := range sp.Env {
			n += len(key) + len(value.Value)
		}
	}
	return Bytes(n)
}

func textsOf(m map[string]string) int {
	n := 0
	for key, value := range m {
		n += len(key) + len(value)
	}
	return n
}

// shares refuses objects that take a tenant above its share. What it has is never
// refused again: taking away always works.
func shares(before, after, changed []*Object) error {
	asked := make(map[string]bool)
	for _, o := range changed {
		tenant := o.Metadata.Tenant
		if tenant == "" || asked[tenant] {
			continue
		}
		asked[tenant] = true
		had, has := shareOf(before, tenant), shareOf(after, tenant)
		switch {
		case has.objects > maxObjects && has.objects > had.objects:
			return fault.New(fault.Exhausted, "store "+o.Ref().String(), "its tenant would have %d objects, more than %d", has.objects, maxObjects)
		case has.bytes > maxShare && has.bytes > had.bytes:
			return fault.New(fault.Exhausted, "store "+o.Ref().String(), "its tenant's objects would take %s, more than %s", has.bytes.About(), Bytes(maxShare))
		}
	}
	return nil
}
