package reconcile

import (
	"strings"
	"testing"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// What the files no longer name makes room for what they name now.
func TestOneReloadReplacesAnInstanceOnAFullHost(t *testing.T) {
	one, all := 1, 8
	quota := &spec.Object{Kind: spec.KindTenant, Metadata: spec.Metadata{Name: "acme"}, Spec: &spec.TenantSpec{Quota: spec.QuotaSpec{Instances: &one, GPUs: &all}}}
	onBench(t, func(t *testing.T, b *bench) {
		settle()
		if err := b.loop.WriteFiles(t.Context(), []*spec.Object{quota, instance("old", 8)}); err != nil {
			t.Fatal(err)
		}
		settle()
		if err := b.loop.WriteFiles(t.Context(), []*spec.Object{quota, instance("new", 8)}); err != nil {
			t.Fatal(err)
		}
		settle()
		if got := b.phase("new"); got != spec.PhaseRunning {
			t.Errorf("new is %s: %+v", got, b.get("new").Status)
		}
		if err := b.neverBroken(); err != nil {
			t.Error(err)
		}
		err := b.loop.WriteFiles(t.Context(), []*spec.Object{quota, instance("newer", 4), instance("newest", 4)})
		if !fault.Is(err, fault.Exhausted) {
			t.Errorf("two instances where one is allowed: %v", err)
		}
		settle()
		if got := b.phase("new"); got != spec.PhaseRunning {
			t.Errorf("a refused reload left new %s", got)
		}
	})
}

func TestWhatFilesDropAndOthersStandOnStays(t *testing.T) {
	group := &spec.Object{Kind: spec.KindSecurityGroup, Metadata: spec.Metadata{Tenant: "acme", Name: "web"}, Spec: &spec.SecurityGroupSpec{}}
	inner := &spec.Object{Kind: spec.KindSecurityGroup, Metadata: spec.Metadata{Tenant: "acme", Name: "inner"}, Spec: &spec.SecurityGroupSpec{
		Ingress: []spec.Rule{{Action: "accept", Protocol: "all", Remote: "sg:web"}},
	}}
	onBench(t, func(t *testing.T, b *bench) {
		settle()
		if err := b.loop.WriteFiles(t.Context(), []*spec.Object{group, inner, instance("a", 1)}); err != nil {
			t.Fatal(err)
		}
		o := instance("mine", 0)
		o.Spec.(*spec.InstanceSpec).Network.SecurityGroups = []string{"inner"}
		b.write(o)
		settle()
		err := b.loop.WriteFiles(t.Context(), nil)
		if !fault.Is(err, fault.Busy) || !strings.Contains(err.Error(), "acme/web") || !strings.Contains(err.Error(), "acme/inner") {
			t.Errorf("the error is %v", err)
		}
		settle()
		for name, kind := range map[string]spec.Kind{"web": spec.KindSecurityGroup, "inner": spec.KindSecurityGroup, "mine": spec.KindInstance} {
			if _, err := b.store.Get(spec.Ref{Kind: kind, Tenant: "acme", Name: name}); err != nil {
				t.Errorf("%s %s: %v", kind, name, err)
			}
		}
		if _, err := b.store.Get(spec.Ref{Kind: spec.KindInstance, Tenant: "acme", Name: "a"}); !fault.Is(err, fault.NotFound) {
			t.Errorf("a, which nobody uses: %v", err)
		}
	})
}
