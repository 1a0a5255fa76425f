package store

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/gpuhost/gpuhost/agent/spec"
)

// largeHost is what specification.md counts with: 100,000 rule entries in 1,000
// groups, 500 instances.
func largeHost() []*spec.Object {
	objects := spec.DefaultsForTenant("acme")
	for i := range 1000 {
		rules := make([]spec.Rule, 100)
		for j := range rules {
			rules[j] = spec.Rule{Action: spec.ActionAccept, Protocol: spec.ProtocolTCP, Ports: fmt.Sprint(j + 1), Remote: "10.0.0.0/8"}
		}
		objects = append(objects, &spec.Object{Kind: spec.KindSecurityGroup,
			Metadata: spec.Metadata{Tenant: "acme", Name: fmt.Sprint("g", i)}, Spec: &spec.SecurityGroupSpec{Ingress: rules}})
	}
	for i := range 500 {
		objects = append(objects, &spec.Object{Kind: spec.KindInstance,
			Metadata: spec.Metadata{Tenant: "acme", Name: fmt.Sprint("i", i)}, Spec: &spec.InstanceSpec{Image: "debian"}})
	}
	return objects
}

// BenchmarkOpen is the store's share of a restart.
func BenchmarkOpen(b *testing.B) {
	s := durable(b, filepath.Join(b.TempDir(), "state.db"))
	apply(b, s, spec.SourceFile, largeHost()...)
	if err := s.db.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, err := Open(s.path, testOptions())
		if err != nil {
			b.Fatal(err)
		}
		s.db.Close()
	}
}

// BenchmarkApplyOneRule is the store's share of a rule change, the whole set
// checked and the file synced.
func BenchmarkApplyOneRule(b *testing.B) {
	s := durable(b, filepath.Join(b.TempDir(), "state.db"))
	apply(b, s, spec.SourceAPI, largeHost()...)
	o, err := s.Get(spec.Ref{Kind: spec.KindSecurityGroup, Tenant: "acme", Name: "g7"})
	if err != nil {
		b.Fatal(err)
	}
	round := 0
	before, err := s.All()
	if err != nil {
		b.Fatal(err)
	}
	check := func(after []*spec.Object) error { return spec.ValidateChange(before, after) }
	for b.Loop() {
		round++
		changed := o.Clone()
		changed.Metadata.Generation = 0
		changed.Spec.(*spec.SecurityGroupSpec).Ingress[50].Ports = fmt.Sprint(round%60000 + 1)
		if _, err := s.Apply(context.Background(), spec.SourceAPI, []*spec.Object{changed}, ApplyOptions{Check: check}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAppendEvent does not wait for the disk.
func BenchmarkAppendEvent(b *testing.B) {
	s := durable(b, filepath.Join(b.TempDir(), "state.db"))
	for b.Loop() {
		if err := s.AppendEvent(Event{Reason: "Test", Message: "message"}); err != nil {
			b.Fatal(err)
		}
	}
}
