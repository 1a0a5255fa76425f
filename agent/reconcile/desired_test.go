package reconcile

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/agent/store"
	"github.com/gpuhost/gpuhost/isolation"
)

func server(edit func(*spec.InstanceSpec)) *spec.Object {
	in := &spec.InstanceSpec{Image: "busybox", State: spec.StateRunning, Restart: spec.RestartOnFailure}
	if edit != nil {
		edit(in)
	}
	return &spec.Object{Kind: spec.KindInstance, Metadata: spec.Metadata{Tenant: "acme", Name: "a", UID: "uidaaaaa", Generation: 3}, Spec: in}
}

func TestDecide(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	ended := func(o *spec.Object, code int, pause time.Duration) store.Record {
		return store.Record{LastExit: &spec.ExitStatus{Code: code, At: now}, EndedRun: runOf(o), NotBefore: now.Add(pause)}
	}
	deleted := server(nil)
	deleted.Metadata.DeletedAt = &now
	with := func(policy string) *spec.Object {
		return server(func(in *spec.InstanceSpec) { in.Restart = policy })
	}
	asked := with(spec.RestartNever)
	asked.Spec.(*spec.InstanceSpec).RestartedAt = "later"
	for _, row := range []struct {
		name   string
		object *spec.Object
		record store.Record
		want   isolation.Want
		keeps  bool
	}{
		{"new", server(nil), store.Record{}, isolation.WantRunning, true},
		{"deleted", deleted, store.Record{}, isolation.WantAbsent, false},
		{"stopped", server(func(in *spec.InstanceSpec) { in.State = spec.StateStopped }), store.Record{}, isolation.WantStopped, false},
		{"done", server(nil), ended(server(nil), 0, 0), isolation.WantStopped, false},
		{"failed, pausing", server(nil), ended(server(nil), 1, time.Second), isolation.WantStopped, true},
		{"failed, pause over", server(nil), ended(server(nil), 1, -time.Second), isolation.WantRunning, true},
		{"done, always", with(spec.RestartAlways), ended(with(spec.RestartAlways), 0, 0), isolation.WantRunning, true},
		{"failed, never", with(spec.RestartNever), ended(with(spec.RestartNever), 1, 0), isolation.WantStopped, false},
		{"ended, then asked again", asked, ended(with(spec.RestartNever), 1, 0), isolation.WantRunning, true},
		{"ended, then another command", server(func(in *spec.InstanceSpec) { in.Command = []string{"x"} }), ended(server(nil), 0, 0), isolation.WantRunning, true},
	} {
		got := decide(row.object, row.record, now)
		if got.want != row.want || got.keeps() != row.keeps {
			t.Errorf("%s: wants %s and keeps %v; want %s, %v", row.name, got.want, got.keeps(), row.want, row.keeps)
		}
		if got.why == "" {
			t.Errorf("%s: no why", row.name)
		}
	}
}

func TestUnknownExitCountsAsFailure(t *testing.T) {
	if !restarts(spec.RestartOnFailure, spec.ExitStatus{Unknown: true}) || restarts(spec.RestartNever, spec.ExitStatus{Unknown: true}) {
		t.Error("an unknown exit must be tried again on-failure, and never under never")
	}
}

// Pauses grow with each short run, stay bounded, and a long run forgives.
func TestRestartPauses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o, r := server(nil), store.Record{}
		at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		last := time.Duration(0)
		for range rapid.IntRange(1, 40).Draw(t, "short runs") {
			r.Started = at
			at = at.Add(time.Second)
			r = afterExit(r, o, spec.ExitStatus{Code: 1, At: at})
			pause := r.NotBefore.Sub(at)
			if pause < last || pause < restartFirst || pause > restartLast {
				t.Fatalf("pause %v after %v", pause, last)
			}
			last, at = pause, r.NotBefore
		}
		r.Started = at
		at = at.Add(restartForgiven)
		r = afterExit(r, o, spec.ExitStatus{Code: 1, At: at})
		if pause := r.NotBefore.Sub(at); pause != restartFirst {
			t.Fatalf("pause after a long run is %v, want %v", pause, restartFirst)
		}
	})
}
