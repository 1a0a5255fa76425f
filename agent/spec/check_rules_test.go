package spec_test

import (
	"strings"
	"testing"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// The entries of a group are bounded, however few rules they are written in.
func TestRulesOfAGroupAreBounded(t *testing.T) {
	group := func(rules int, ports string) *spec.Object {
		written := make([]spec.Rule, rules)
		for i := range written {
			written[i] = spec.Rule{Action: "accept", Protocol: "tcp", Ports: ports, Remote: "any"}
		}
		o := &spec.Object{Kind: spec.KindSecurityGroup, Spec: &spec.SecurityGroupSpec{Ingress: written}}
		o.Metadata.Tenant, o.Metadata.Name = "acme", "web"
		spec.Default(o)
		return o
	}
	ten := strings.TrimSuffix(strings.Repeat("80,", 10), ",")
	for _, row := range []struct {
		name   string
		object *spec.Object
		want   fault.Kind
	}{
		{"as many as there may be", group(5000, ""), ""},
		{"one rule more", group(5001, ""), fault.Invalid},
		{"few rules of many ports", group(500, ten), ""},
		{"one of them more", group(501, ten), fault.Invalid},
	} {
		t.Run(row.name, func(t *testing.T) {
			if err := spec.Validate(row.object); fault.KindOf(err) != row.want {
				t.Errorf("Validate: %v, want %q", err, row.want)
			}
		})
	}
}
