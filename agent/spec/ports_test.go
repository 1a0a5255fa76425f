package spec

import (
	"strings"
	"testing"
	"time"
)

// The tenant who comes later is told, without the name of the one who has the
// port, whatever their names sort like.
func TestTheNewcomerIsToldThatAPortIsTaken(t *testing.T) {
	server := func(tenant string, at time.Time) *Object {
		o := &Object{Kind: KindInstance, Metadata: Metadata{Tenant: tenant, Name: "web", CreatedAt: at}, Spec: &InstanceSpec{
			Image: "busybox", Publish: []Publish{{HostPort: 80, Port: 80, Protocol: "tcp"}},
		}}
		Default(o)
		return o
	}
	first, second := time.Unix(1000, 0), time.Unix(2000, 0)
	set := append(DefaultsForTenant("acme"), DefaultsForTenant("globex")...)
	err := ValidateSet(append(set, server("acme", second), server("globex", first)))
	if err == nil || !strings.Contains(err.Error(), "acme/web") || strings.Contains(err.Error(), "globex") {
		t.Errorf("got %v; want acme told, without a word of globex", err)
	}
}
