package service

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/spec"
)

func instance(command []string, labels map[string]string) *spec.Object {
	return &spec.Object{
		Kind: spec.KindInstance, Metadata: spec.Metadata{Tenant: "acme", Name: "a", Labels: labels},
		Spec: &spec.InstanceSpec{Image: "busybox", Command: command},
	}
}

func TestDiffNamesWhatDiffers(t *testing.T) {
	got, err := diff(instance([]string{"sh", "-c", "old"}, nil), instance([]string{"sh"}, map[string]string{"app": "web"}))
	if err != nil {
		t.Fatal(err)
	}
	want := []api.Diff{
		{Path: "metadata.labels.app", To: "web"},
		{Path: "spec.command[1]", From: "-c"},
		{Path: "spec.command[2]", From: "old"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestDiffOfANewObjectHasEveryField(t *testing.T) {
	got, err := diff(nil, instance([]string{"sh"}, nil))
	if err != nil || len(got) == 0 {
		t.Fatalf("got %v, %v", got, err)
	}
	for _, d := range got {
		if d.From != "" {
			t.Errorf("%s was %q before it existed", d.Path, d.From)
		}
	}
}

func TestDiffNeverShowsASecret(t *testing.T) {
	secret := func(value string) *spec.Object {
		return &spec.Object{Kind: spec.KindSecret, Metadata: spec.Metadata{Tenant: "acme", Name: "s"}, Spec: &spec.SecretSpec{Data: map[string]string{"password": value}}}
	}
	got, err := diff(secret("hunter2"), secret("hunter3"))
	if err != nil {
		t.Fatal(err)
	}
	want := []api.Diff{{Path: "spec.data.password", From: spec.Redacted, To: spec.Redacted}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
