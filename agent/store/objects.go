package store

import (
	"cmp"
	"context"
	"maps"
	"reflect"
	"slices"

	"go.etcd.io/bbolt"

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
)

// Applied is one object as it is stored now.
type Applied struct {
	Object *spec.Object
	Change Action
}

// ApplyOptions are how objects are stored.
type ApplyOptions struct {
	DryRun bool
	// Check sees the whole desired set as it would be; its error refuses all.
	Check func(after []*spec.Object) error
}

// Get gives the object of this name.
func (s *Store) Get(ref spec.Ref) (*spec.Object, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if uid, there := s.byRef[ref]; there {
		return s.objects[uid], nil
	}
	return nil, absent(ref)
}

func absent(ref spec.Ref) error {
	return fault.New(fault.NotFound, "find "+ref.String(), "there is none").
		WithHint("gpuhost get %s", ref.Kind.Plural())
}

// GetUID gives the object with this uid.
func (s *Store) GetUID(uid spec.UID) (*spec.Object, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if o, there := s.objects[uid]; there {
		return o, nil
	}
	return nil, fault.New(fault.NotFound, "find object "+string(uid), "there is none")
}

// List gives the objects of a kind, of one tenant or, for "", of all, sorted by
// tenant and name.
func (s *Store) List(kind spec.Kind, tenant string) ([]*spec.Object, error) {
	all, err := s.All()
	return slices.DeleteFunc(all, func(o *spec.Object) bool {
		return o.Kind != kind || tenant != "" && o.Metadata.Tenant != tenant
	}), err
}

// All gives every object, sorted by tenant, kind and name.
func (s *Store) All() ([]*spec.Object, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return sorted(s.objects), nil
}

func sorted(objects map[spec.UID]*spec.Object) []*spec.Object {
	return slices.SortedFunc(maps.Values(objects), func(x, y *spec.Object) int {
		return cmp.Or(cmp.Compare(x.Metadata.Tenant, y.Metadata.Tenant), cmp.Compare(x.Kind, y.Kind),
			cmp.Compare(x.Metadata.Name, y.Metadata.Name))
	})
}

// Apply stores all objects or none. Metadata.Generation, where it is not 0, must
// be the stored one; an object of another source, a default apart, is a
// conflict; one whose specification and labels are unchanged keeps its
// generation. A redaction mark in a secret stands for the value that is stored.
func (s *Store) Apply(_ context.Context, source spec.Source, objects []*spec.Object, how ApplyOptions) ([]Applied, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	after := maps.Clone(s.objects)
	out := make([]Applied, 0, len(objects))
	for _, o := range objects {
		applied, err := s.merge(after, source, o)
		if err != nil {
			return nil, err
		}
		after[applied.Object.Metadata.UID] = applied.Object
		out = append(out, applied)
	}
	if how.Check != nil {
		if err := how.Check(sorted(after)); err != nil {
			return nil, err
		}
	}
	if how.DryRun {
		return out, nil
	}
	return out, s.keep(out)
}

// merge gives what an object would be after it was applied over the stored one.
func (s *Store) merge(after map[spec.UID]*spec.Object, source spec.Source, o *spec.Object) (Applied, error) {
	source = cmp.Or(o.Metadata.Source, source)
	uid, there := s.byRef[o.Ref()]
	if !there {
		return s.create(source, o)
	}
	old := after[uid]
	if err := mayWrite(old, source, o); err != nil {
		return Applied{}, err
	}
	next := *o
	next.APIVersion, next.Status = spec.APIVersion, old.Status
	next.Metadata.UID, next.Metadata.CreatedAt = old.Metadata.UID, old.Metadata.CreatedAt
	next.Metadata.Generation, next.Metadata.Source = old.Metadata.Generation, source
	next.Metadata.DeletedAt = nil
	var err error
	if next.Spec, err = unredact(o, old); err != nil {
		return Applied{}, err
	}
	if old.Metadata.Source == source && reflect.DeepEqual(next.Spec, old.Spec) && maps.Equal(next.Metadata.Labels, old.Metadata.Labels) {
		return Applied{Object: old, Change: Unchanged}, nil
	}
	if source == spec.SourceDefault {
		return Applied{Object: old, Change: Unchanged}, nil
	}
	next.Metadata.Generation++
	return Applied{Object: &next, Change: Changed}, nil
}

func (s *Store) create(source spec.Source, o *spec.Object) (Applied, error) {
	if o.Metadata.Generation != 0 {
		return Applied{}, fault.New(fault.Conflict, "change "+o.Ref().String(), "it is gone; generation %d was read before", o.Metadata.Generation).
			WithHint("leave metadata.generation out to create it")
	}
	fresh := *o
	fresh.APIVersion, fresh.Status = spec.APIVersion, nil
	fresh.Metadata.UID, fresh.Metadata.CreatedAt = s.freshUID(), s.now().UTC()
	fresh.Metadata.Generation, fresh.Metadata.Source, fresh.Metadata.DeletedAt = 1, source, nil
	var err error
	fresh.Spec, err = unredact(o, nil)
	return Applied{Object: &fresh, Change: Created}, err
}

func (s *Store) freshUID() spec.UID {
	for {
		uid := spec.NewUID()
		if _, taken := s.objects[uid]; !taken {
			return uid
		}
	}
}

func mayWrite(old *spec.Object, source spec.Source, o *spec.Object) error {
	what := "change " + o.Ref().String()
	switch m := old.Metadata; {
	case m.DeletedAt != nil:
		return fault.New(fault.Busy, what, "it is being deleted").WithHint("gpuhost wait --for=deleted, then try again")
	case o.Metadata.Generation != 0 && o.Metadata.Generation != m.Generation:
		return fault.New(fault.Conflict, what, "it has generation %d by now, not %d", m.Generation, o.Metadata.Generation).
			WithHint("read it again, or leave metadata.generation out")
	case m.Source != source && m.Source != spec.SourceDefault && source != spec.SourceDefault:
		return fault.New(fault.Conflict, what, "it belongs to source %s", m.Source).
			WithHint("change it where it came from (%s), or delete it there first", m.Source)
	}
	return nil
}

// unredact gives o's specification, redaction marks replaced by stored values.
func unredact(o, old *spec.Object) (spec.Spec, error) {
	in, secret := o.Spec.(*spec.SecretSpec)
	if !secret {
		return o.Spec, nil
	}
	out := &spec.SecretSpec{Data: maps.Clone(in.Data)}
	for key, value := range in.Data {
		if value != spec.Redacted {
			continue
		}
		kept, there := storedValue(old, key)
		if !there {
			return nil, fault.New(fault.Invalid, "apply "+o.Ref().String(), "key %q is redacted and no value of it is stored", key).
				WithHint("write the value itself")
		}
		out.Data[key] = kept
	}
	return out, nil
}

func storedValue(old *spec.Object, key string) (string, bool) {
	if old == nil {
		return "", false
	}
	value, there := old.Spec.(*spec.SecretSpec).Data[key]
	return value, there
}

// keep writes what was applied to the file, then to memory.
func (s *Store) keep(applied []Applied) error {
	err := s.update("store objects", func(tx *bbolt.Tx) error {
		for _, a := range applied {
			if a.Change == Unchanged {
				continue
			}
			if err := s.put(tx, a.Object); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, a := range applied {
		s.remember(a.Object)
	}
	return nil
}

func (s *Store) put(tx *bbolt.Tx, o *spec.Object) error {
	text, err := s.seal(o)
	if err != nil {
		return err
	}
	return tx.Bucket([]byte(bucketObjects)).Put([]byte(o.Metadata.UID), text)
}

// MarkDeleted notes that an object is to go; ifMatch is its generation, 0 for
// any. Doing it again changes nothing.
func (s *Store) MarkDeleted(ref spec.Ref, ifMatch uint64) (*spec.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, there := s.objects[s.byRef[ref]]
	if !there {
		return nil, absent(ref)
	}
	if ifMatch != 0 && ifMatch != old.Metadata.Generation {
		return nil, fault.New(fault.Conflict, "delete "+ref.String(), "it has generation %d by now, not %d", old.Metadata.Generation, ifMatch)
	}
	if old.Metadata.DeletedAt != nil {
		return old, nil
	}
	next, at := *old, s.now().UTC()
	next.Metadata.DeletedAt = &at
	next.Metadata.Generation++
	err := s.update("delete "+ref.String(), func(tx *bbolt.Tx) error { return s.put(tx, &next) })
	if err != nil {
		return nil, err
	}
	s.remember(&next)
	return &next, nil
}

// Remove drops an object and what is remembered of it. Removing an absent one
// changes nothing.
func (s *Store) Remove(uid spec.UID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, there := s.objects[uid]
	if !there {
		return nil
	}
	err := s.update("remove "+o.Ref().String(), func(tx *bbolt.Tx) error {
		if err := tx.Bucket([]byte(bucketRecords)).Delete([]byte(uid)); err != nil {
			return err
		}
		return tx.Bucket([]byte(bucketObjects)).Delete([]byte(uid))
	})
	if err != nil {
		return err
	}
	s.forget(o)
	delete(s.records, uid)
	return nil
}

// SetStatus replaces what was last observed of an object. It is kept in memory.
func (s *Store) SetStatus(uid spec.UID, status spec.Status) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, there := s.objects[uid]
	if !there {
		return nil // removed meanwhile
	}
	next := *o
	next.Status = &status
	s.objects[uid] = &next
	return nil
}
