package store

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"reflect"

	bolt "go.etcd.io/bbolt"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// Action is what an apply did to an object.
type Action string

// The actions.
const (
	Created   Action = "created"
	Changed   Action = "changed"
	Unchanged Action = "unchanged"
	Deleted   Action = "deleted" // it is to go
)

// Applied is one object as it is stored now.
type Applied struct {
	Object *spec.Object
	Change Action
}

// ApplyOptions are how objects are stored.
type ApplyOptions struct {
	DryRun bool // do all that Apply does, and give its errors, short of writing
	// Drop are stored objects that are to go in the same write, as by
	// [Store.MarkDeleted]. They come last in what Apply returns.
	Drop []*spec.Object
	// Check sees the whole desired set as it would be, objects that are being
	// deleted included; its error refuses all. It must not call the store's writers.
	Check func(after []*spec.Object) error
}

// Apply stores all objects or none. Defaults are filled in and each object is
// validated by itself; Check then sees everything together.
//
// A generation or uid in the metadata, where there is one, must be the stored
// one. An object of another source is a conflict, unless that source is default:
// it is taken over. A default itself never replaces anything. A source in the
// object's metadata goes before the one given. An object whose specification
// and labels are unchanged keeps its generation. A redaction mark in a secret
// stands for the value that is stored.
func (s *Store) Apply(ctx context.Context, source spec.Source, objects []*spec.Object, how ApplyOptions) ([]Applied, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	a := application{store: s, source: source, after: s.snapshot(), seen: make(map[spec.Ref]bool, len(objects))}
	for _, o := range objects {
		if err := a.add(o.Clone()); err != nil {
			return nil, err
		}
	}
	for _, o := range how.Drop {
		a.drop(o)
	}
	if how.Check != nil {
		if err := how.Check(sorted(a.after)); err != nil {
			return nil, err
		}
	}
	if how.DryRun || len(a.changed) == 0 {
		return a.applied, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, fault.Wrap(fault.Timeout, "store objects", err)
	}
	err := s.write("store objects", a.urgency(), func(tx *bolt.Tx) error { return s.putObjects(tx, a.changed) })
	if err != nil {
		return nil, err
	}
	s.adopt(a.changed)
	return a.applied, nil
}

// application is one Apply on its way.
type application struct {
	store   *Store
	source  spec.Source
	seen    map[spec.Ref]bool
	after   map[spec.UID]*spec.Object
	applied []Applied
	changed []*spec.Object
}

// add merges one object, which it may keep.
func (a *application) add(o *spec.Object) error {
	spec.Default(o)
	if err := spec.Validate(o); err != nil {
		return err
	}
	if a.seen[o.Ref()] {
		return fault.New(fault.Invalid, o.Ref().String(), "is there twice")
	}
	a.seen[o.Ref()] = true
	merged, err := a.merge(o)
	if err != nil {
		return err
	}
	a.applied = append(a.applied, merged)
	if merged.Change != Unchanged {
		a.after[merged.Object.Metadata.UID] = merged.Object
		a.changed = append(a.changed, merged.Object)
	}
	return nil
}

// drop marks a stored object, unless it is gone or going already.
func (a *application) drop(o *spec.Object) {
	old := a.after[o.Metadata.UID]
	if old == nil || old.Metadata.DeletedAt != nil {
		return
	}
	marked := a.store.deleted(old)
	a.after[marked.Metadata.UID] = marked
	a.applied = append(a.applied, Applied{marked, Deleted})
	a.changed = append(a.changed, marked)
}

// urgency: deletions alone work on a full disk.
func (a *application) urgency() urgency {
	for _, one := range a.applied {
		if one.Change == Created || one.Change == Changed {
			return ordinary
		}
	}
	return freeing
}

func (a *application) merge(o *spec.Object) (Applied, error) {
	source := cmp.Or(o.Metadata.Source, a.source)
	old := a.store.present(o.Ref())
	if old == nil {
		return a.create(source, o)
	}
	if err := mayWrite(old, source, o); err != nil {
		return Applied{}, err
	}
	if source == spec.SourceDefault {
		return Applied{old, Unchanged}, nil
	}
	if err := unredact(o, old); err != nil {
		return Applied{}, err
	}
	same := reflect.DeepEqual(o.Spec, old.Spec) && maps.Equal(o.Metadata.Labels, old.Metadata.Labels)
	if same && old.Metadata.Source == source {
		return Applied{old, Unchanged}, nil
	}
	m := old.Metadata
	m.Labels, m.Source = o.Metadata.Labels, source
	if !same {
		m.Generation++
	}
	o.Metadata, o.Status = m, old.Status
	return Applied{o, Changed}, nil
}

// mayWrite refuses a writer who is not the owner or saw an older state.
func mayWrite(old *spec.Object, source spec.Source, o *spec.Object) error {
	what := "change " + o.Ref().String()
	want, have := o.Metadata, old.Metadata
	switch {
	case have.DeletedAt != nil:
		return fault.New(fault.Busy, what, "it is being deleted").WithHint("gpuhost wait --for=deleted, then try again")
	case want.UID != "" && want.UID != have.UID:
		return fault.New(fault.Conflict, what, "it is another object by now: uid %s, not %s", have.UID, want.UID).
			WithHint("read it again, or leave metadata.uid out")
	case want.Generation != 0 && want.Generation != have.Generation:
		return stale(what, want.Generation, have.Generation)
	case have.Source != source && have.Source != spec.SourceDefault && source != spec.SourceDefault:
		return fault.New(fault.Conflict, what, "it belongs to source %s", have.Source).
			WithHint("change it where it came from (%s), or delete it there first", have.Source)
	}
	return nil
}

func stale(what string, want, have uint64) error {
	return fault.New(fault.Conflict, what, "it has generation %d by now, not %d", have, want).
		WithHint("read it again, or leave metadata.generation out")
}

func (a *application) create(source spec.Source, o *spec.Object) (Applied, error) {
	if o.Metadata.Generation != 0 || o.Metadata.UID != "" {
		return Applied{}, fault.New(fault.Conflict, "change "+o.Ref().String(), "it is gone, and the write asks for one that was read before").
			WithHint("leave metadata.uid and metadata.generation out to create it")
	}
	if err := unredact(o, nil); err != nil {
		return Applied{}, err
	}
	uid := spec.NewUID()
	for a.after[uid] != nil {
		uid = spec.NewUID()
	}
	o.Metadata = spec.Metadata{
		Tenant: o.Metadata.Tenant, Name: o.Metadata.Name, Labels: o.Metadata.Labels,
		UID: uid, CreatedAt: a.store.now(), Generation: 1, Source: source,
	}
	o.Status = nil
	return Applied{o, Created}, nil
}

// unredact puts the stored values where a shown secret was written back.
func unredact(o, old *spec.Object) error {
	wanted, is := o.Spec.(*spec.SecretSpec)
	if !is {
		return nil
	}
	stored := &spec.SecretSpec{}
	if old != nil {
		stored = old.Spec.(*spec.SecretSpec)
	}
	for key, value := range wanted.Data {
		if value != spec.Redacted {
			continue
		}
		kept, there := stored.Data[key]
		if !there {
			return fault.New(fault.Invalid, fmt.Sprintf("%s: spec.data.%s", o.Ref(), key), "it is redacted and no value of it is stored").
				WithHint("write the value itself")
		}
		wanted.Data[key] = kept
	}
	return nil
}

// MarkDeleted notes that an object is to go; it stays until [Store.Remove].
// ifMatch is its generation, 0 for any. Doing it again changes nothing. It works
// on a full disk.
func (s *Store) MarkDeleted(ref spec.Ref, ifMatch uint64) (*spec.Object, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	old, err := s.Get(ref)
	if err != nil {
		return nil, err
	}
	if ifMatch != 0 && ifMatch != old.Metadata.Generation {
		return nil, stale("delete "+ref.String(), ifMatch, old.Metadata.Generation)
	}
	if old.Metadata.DeletedAt != nil {
		return old, nil
	}
	marked := s.deleted(old)
	objects := []*spec.Object{marked}
	err = s.write("delete "+ref.String(), freeing, func(tx *bolt.Tx) error { return s.putObjects(tx, objects) })
	if err != nil {
		return nil, err
	}
	s.adopt(objects)
	return marked, nil
}

// deleted is an object from now on to go.
func (s *Store) deleted(o *spec.Object) *spec.Object {
	marked, at := *o, s.now()
	marked.Metadata.DeletedAt = &at
	marked.Metadata.Generation++
	return &marked
}

// Remove forgets an object and what is remembered of its runs, at the end of its
// deletion. Its claims stay until [Store.ReleaseAll]. Removing an absent one
// changes nothing. It works on a full disk.
func (s *Store) Remove(uid spec.UID) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	o, err := s.GetUID(uid)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	err = s.write("remove "+o.Ref().String(), freeing, func(tx *bolt.Tx) error {
		if err := tx.Bucket([]byte(bucketRecords)).Delete([]byte(uid)); err != nil {
			return err
		}
		return tx.Bucket([]byte(bucketObjects)).Delete([]byte(uid))
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.memory.objects, uid)
	delete(s.memory.byRef, o.Ref())
	delete(s.memory.records, uid)
	s.revision++
	return nil
}
