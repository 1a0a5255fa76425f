package service

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/agent/store"
	"github.com/gpuhost/gpuhost/isolation/runtime"
)

func TestWhichImagesAreInUse(t *testing.T) {
	s, err := store.Open(filepath.Join(t.TempDir(), "state.db"), store.Options{Now: time.Now, BootID: "boot", Key: make([]byte, 32), Volatile: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	instance := func(name, image, state string) *spec.Object {
		return &spec.Object{Kind: spec.KindInstance, Metadata: spec.Metadata{Tenant: "acme", Name: name}, Spec: &spec.InstanceSpec{Image: image, State: state}}
	}
	_, err = s.Apply(t.Context(), spec.SourceAPI, []*spec.Object{
		instance("waits", "debian", spec.StateRunning), instance("stopped", "busybox", spec.StateStopped),
		instance("going", "alpine", spec.StateRunning),
	}, store.ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.MarkDeleted(spec.Ref{Kind: spec.KindInstance, Tenant: "acme", Name: "going"}, 0); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		image runtime.ImageInfo
		want  bool
	}{
		"an instance was made from it":        {runtime.ImageInfo{Tenant: "acme", Ref: "docker.io/library/none:1", UsedBy: []spec.UID{"u"}}, true},
		"an instance that is to run names it": {runtime.ImageInfo{Tenant: "acme", Ref: "docker.io/library/debian:latest"}, true},
		"a stopped one names it":              {runtime.ImageInfo{Tenant: "acme", Ref: "docker.io/library/busybox:latest"}, false},
		"one that is deleted names it":        {runtime.ImageInfo{Tenant: "acme", Ref: "docker.io/library/alpine:latest"}, false},
		"another tenant's instance names it":  {runtime.ImageInfo{Tenant: "other", Ref: "docker.io/library/debian:latest"}, false},
		"nobody names it":                     {runtime.ImageInfo{Tenant: "acme", Ref: "docker.io/library/debian:12"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := InUse(s, row.image); got != row.want {
				t.Errorf("in use: %t, want %t", got, row.want)
			}
		})
	}
}
