package store

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// model is the store as one would explain it: maps, and no disk.
type model struct {
	objects map[spec.Ref]modelObject
	claims  map[string]spec.UID
	ledger  map[gpu.UUID]drivers.State
}

type modelObject struct {
	UID        spec.UID
	CIDR       string
	Generation uint64
	Source     spec.Source
	Deleted    bool
	Restarts   int
}

// machine drives store and model with the same operations. After each, the
// store is opened again without being closed in order: a crash.
type machine struct {
	t     *rapid.T
	outer *testing.T
	store *Store
	model model
}

func (m *machine) ref() spec.Ref {
	name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(m.t, "name")
	return spec.Ref{Kind: spec.KindNetwork, Tenant: "acme", Name: name}
}

// Apply writes one object, sometimes with a generation, from some source.
func (m *machine) Apply(t *rapid.T) {
	m.t = t
	ref := m.ref()
	source := rapid.SampledFrom([]spec.Source{spec.SourceAPI, spec.SourceFile, spec.SourceDefault}).Draw(t, "source")
	o := networkOf(ref.Tenant, ref.Name, rapid.SampledFrom([]string{"10.0.0.0/16", "10.1.0.0/16"}).Draw(t, "cidr"))
	o.Metadata.Generation = rapid.Uint64Range(0, 3).Draw(t, "generation")
	have, there := m.model.objects[ref]
	cidr := o.Spec.(*spec.NetworkSpec).CIDR

	applied, err := m.store.Apply(context.Background(), source, []*spec.Object{o}, ApplyOptions{})
	stale := o.Metadata.Generation != 0 && o.Metadata.Generation != have.Generation
	foreign := there && have.Source != source && have.Source != spec.SourceDefault && source != spec.SourceDefault
	switch {
	case there && have.Deleted:
		wantKind(t, err, fault.Busy)
	case stale, foreign:
		wantKind(t, err, fault.Conflict)
	case err != nil:
		t.Fatal(err)
	case !there:
		m.model.objects[ref] = modelObject{UID: applied[0].Object.Metadata.UID, CIDR: cidr, Generation: 1, Source: source}
	case source != spec.SourceDefault:
		if have.CIDR != cidr {
			have.CIDR, have.Generation = cidr, have.Generation+1
		}
		have.Source = source
		m.model.objects[ref] = have
	}
}

// Delete marks.
func (m *machine) Delete(t *rapid.T) {
	m.t = t
	ref := m.ref()
	have, there := m.model.objects[ref]
	_, err := m.store.MarkDeleted(ref, 0)
	if !there {
		wantKind(t, err, fault.NotFound)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if !have.Deleted {
		have.Deleted, have.Generation = true, have.Generation+1
	}
	m.model.objects[ref] = have
}

// Remove forgets, whether marked or not.
func (m *machine) Remove(t *rapid.T) {
	m.t = t
	ref := m.ref()
	uid := m.model.objects[ref].UID
	if err := m.store.Remove(uid); err != nil {
		t.Fatal(err)
	}
	delete(m.model.objects, ref)
}

// Restart counts in the record.
func (m *machine) Restart(t *rapid.T) {
	m.t = t
	ref := m.ref()
	have, there := m.model.objects[ref]
	if err := m.store.UpdateRecord(have.UID, func(r *Record) { r.Restarts++ }); err != nil {
		t.Fatal(err)
	}
	if there {
		have.Restarts++
		m.model.objects[ref] = have
	}
}

func (m *machine) owner() spec.UID {
	return spec.UID(rapid.SampledFrom([]string{"u1", "u2"}).Draw(m.t, "owner"))
}

// Claim takes one of few values.
func (m *machine) Claim(t *rapid.T) {
	m.t = t
	owner, value := m.owner(), rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "value")
	err := m.store.Claim(context.Background(), "pool", value, owner)
	other := func(v string) bool { return v != value && m.model.claims[v] == owner }
	if held := m.model.claims[value]; held != "" && held != owner || held == "" && slices.ContainsFunc([]string{"1", "2", "3"}, other) {
		wantKind(t, err, fault.Conflict)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	m.model.claims[value] = owner
}

// Release gives all of an owner's back.
func (m *machine) Release(t *rapid.T) {
	m.t = t
	owner := m.owner()
	if err := m.store.ReleaseAll(owner); err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(m.model.claims, func(_ string, held spec.UID) bool { return held == owner })
}

// Transition moves two GPUs at once, or none.
func (m *machine) Transition(t *rapid.T) {
	m.t = t
	states := rapid.SampledFrom(drivers.States())
	after := maps.Clone(m.model.ledger)
	allowed := true
	var changes []drivers.Change
	for _, id := range []gpu.UUID{"g1", "g2"} {
		from, to := states.Draw(t, "from"), states.Draw(t, "to")
		changes = append(changes, drivers.Change{From: from, To: drivers.Entry{GPU: id, State: to}})
		present := after[id]
		if present == "" {
			present = drivers.Free
		}
		allowed = allowed && present == from && drivers.Allowed(from, to)
		after[id] = to
	}
	err := m.store.Ledger().Transition(context.Background(), changes)
	if (err == nil) != allowed {
		t.Fatalf("%+v from %v: %v", changes, m.model.ledger, err)
	}
	if allowed {
		m.model.ledger = after
	}
}

// Check compares, after a crash.
func (m *machine) Check(t *rapid.T) {
	m.store = again(m.outer, m.store)
	got := model{objects: map[spec.Ref]modelObject{}, ledger: map[gpu.UUID]drivers.State{}}
	all, err := m.store.All()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range all {
		r, err := m.store.Record(o.Metadata.UID)
		if err != nil {
			t.Fatal(err)
		}
		got.objects[o.Ref()] = modelObject{
			UID: o.Metadata.UID, CIDR: o.Spec.(*spec.NetworkSpec).CIDR, Generation: o.Metadata.Generation,
			Source: o.Metadata.Source, Deleted: o.Metadata.DeletedAt != nil, Restarts: r.Restarts,
		}
	}
	got.claims, _ = m.store.Claims("pool")
	entries, _ := m.store.Ledger().Entries(context.Background())
	for id, e := range entries {
		got.ledger[id] = e.State
	}
	if len(got.claims) == 0 {
		got.claims = map[string]spec.UID{}
	}
	if diff := cmp.Diff(m.model, got, cmp.AllowUnexported(model{})); diff != "" {
		t.Fatal(diff)
	}
}

// TestStoreIsItsModel also shows crash safety: whatever returned is there when
// the file is opened again, and nothing else.
func TestStoreIsItsModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &machine{outer: t, store: open(t, filepath.Join(t.TempDir(), "state.db")), model: model{
			objects: map[spec.Ref]modelObject{}, claims: map[string]spec.UID{}, ledger: map[gpu.UUID]drivers.State{},
		}}
		rt.Repeat(rapid.StateMachineActions(m))
		m.store.db.Close()
	})
}

// TestManyAtOnce is for the race detector: every kind of reader and writer.
func TestManyAtOnce(t *testing.T) {
	s := fresh(t)
	ctx := context.Background()
	var group sync.WaitGroup
	for i := range 4 {
		name := fmt.Sprint("n", i)
		ref := networkOf("acme", name, "10.0.0.0/16").Ref()
		group.Go(func() {
			for round := range 10 {
				applied := apply(t, s, spec.SourceAPI, networkOf("acme", name, fmt.Sprintf("10.%d.0.0/16", round)))
				uid := applied[0].Object.Metadata.UID
				errs := []error{
					s.SetStatus(uid, spec.Status{ObservedGeneration: uint64(round)}),
					s.UpdateRecord(uid, func(r *Record) { r.Restarts = round }),
					s.Claim(ctx, "pool", name, uid),
					s.AppendEvent(Event{Message: name}),
					s.PutChange(&Change{ID: name, State: ChangeRunning}),
				}
				if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
					t.Error(errs[i])
				}
			}
		})
		group.Go(func() {
			for range 50 {
				_, _ = s.Get(ref)
				_, _ = s.All()
				_, _ = s.Events(0, 10)
				_, _ = s.Changes(0)
				_, _ = s.Claims("pool")
				s.NextEvent()
			}
		})
	}
	group.Wait()
	for i := range 4 {
		o, err := s.Get(networkOf("acme", fmt.Sprint("n", i), "").Ref())
		if err != nil || o.Metadata.Generation != 10 || o.Status == nil || o.Status.ObservedGeneration != 9 {
			t.Errorf("%+v, %v", o, err)
		}
	}
	if events, _ := s.Events(0, 0); len(events) != 40 {
		t.Errorf("%d events of 40", len(events))
	}
}
