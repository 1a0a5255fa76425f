package spec

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gpuhost/gpuhost/agent/fault"
)

func secret(name string, bytes int) *Object {
	return &Object{Kind: KindSecret, Metadata: Metadata{Tenant: "acme", Name: name},
		Spec: &SecretSpec{Data: map[string]string{"k": strings.Repeat("x", bytes)}}}
}

func TestATenantsShare(t *testing.T) {
	many := DefaultsForTenant("acme")
	for i := range maxObjects {
		many = append(many, secret(fmt.Sprint("s", i), 1))
	}
	full := many[:maxObjects+1] // with the tenant itself, which is the operator's
	if err := ValidateChange(nil, full); err != nil {
		t.Fatal(err)
	}
	err := ValidateChange(full, many[:maxObjects+2])
	if !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "would have 10001 objects, more than 10000") {
		t.Errorf("one more: %v", err)
	}
	if err := ValidateChange(many, full); err != nil {
		t.Errorf("less, and still above: %v", err)
	}
	if err := ValidateChange(full, append(slices.Clone(full), DefaultsForTenant("other")...)); err != nil {
		t.Errorf("another tenant's: %v", err)
	}
	heavy := DefaultsForTenant("acme")
	for i := range 65 {
		heavy = append(heavy, secret(fmt.Sprint("s", i), 1<<20-1000))
	}
	if err := ValidateChange(nil, heavy[:len(heavy)-1]); err != nil {
		t.Error(err)
	}
	err = ValidateChange(heavy[:len(heavy)-1], heavy)
	if !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "more than 64MiB") {
		t.Errorf("too heavy: %v", err)
	}
}
