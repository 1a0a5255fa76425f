package store

import (
	"testing"

	"github.com/gpuhost/gpuhost/agent/spec"
)

func TestRevisionMovesWithWhatIsServedFromMemory(t *testing.T) {
	s := fresh(t)
	o := apply(t, s, spec.SourceAPI, networkOf("acme", "a", "10.0.0.0/16"))[0].Object
	uid := o.Metadata.UID
	running := spec.Status{Phase: spec.PhaseRunning}
	for _, step := range []struct {
		name  string
		do    func() error
		moves bool
	}{
		{"a write", func() error { apply(t, s, spec.SourceAPI, networkOf("acme", "a", "10.1.0.0/16")); return nil }, true},
		{"a status", func() error { return s.SetStatus(uid, running) }, true},
		{"the same status", func() error { return s.SetStatus(uid, running) }, false},
		{"a claim", func() error { return s.Claim(t.Context(), "pool", "1", uid) }, true},
		{"the same claim", func() error { return s.Claim(t.Context(), "pool", "1", uid) }, false},
		{"a record", func() error { return s.UpdateRecord(uid, func(r *Record) { r.Pid = 1 }) }, false},
		{"a mark", func() error { _, err := s.MarkDeleted(o.Ref(), 0); return err }, true},
		{"a release", func() error { return s.ReleaseAll(uid) }, true},
		{"a removal", func() error { return s.Remove(uid) }, true},
		{"a file read again", s.reload, true},
	} {
		before := s.Revision()
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if moved := s.Revision() != before; moved != step.moves {
			t.Errorf("%s moves the revision: %v, want %v", step.name, moved, step.moves)
		}
	}
}

func TestClaimOfFindsItsOwnersValueOnly(t *testing.T) {
	s := fresh(t)
	for value, owner := range map[string]spec.UID{"1": "a", "2": "b"} {
		if err := s.Claim(t.Context(), "pool", value, owner); err != nil {
			t.Fatal(err)
		}
	}
	if value, has := s.ClaimOf("pool", "b"); value != "2" || !has {
		t.Errorf("b has %q, %v", value, has)
	}
	if _, has := s.ClaimOf("other", "b"); has {
		t.Error("b has a value of a pool it claimed nothing of")
	}
}
