package store

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// Get gives the object of this name with its status, or a not-found fault that
// names the nearest.
func (s *Store) Get(ref spec.Ref) (*spec.Object, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if uid, there := s.memory.byRef[ref]; there {
		return s.memory.objects[uid], nil
	}
	return nil, s.memory.absent(ref)
}

// GetUID gives the object with this uid with its status, or a not-found fault.
func (s *Store) GetUID(uid spec.UID) (*spec.Object, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if o := s.memory.objects[uid]; o != nil {
		return o, nil
	}
	return nil, fault.New(fault.NotFound, "find object "+string(uid), "there is none")
}

// List gives the objects of a kind, of one tenant or, for "", of all, sorted by
// tenant and name.
func (s *Store) List(kind spec.Kind, tenant string) ([]*spec.Object, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var found []*spec.Object
	for _, o := range s.memory.objects {
		if o.Kind == kind && (tenant == "" || o.Metadata.Tenant == tenant) {
			found = append(found, o)
		}
	}
	slices.SortFunc(found, inOrder)
	return found, nil
}

// All gives every object, sorted by tenant, kind and name.
func (s *Store) All() ([]*spec.Object, error) { return sorted(s.snapshot()), nil }

// Revision moves with every object, status and claim that becomes another one.
// What was read after it was asked for is true as long as it stands.
func (s *Store) Revision() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.revision
}

func sorted(objects map[spec.UID]*spec.Object) []*spec.Object {
	return slices.SortedFunc(maps.Values(objects), inOrder)
}

func inOrder(a, b *spec.Object) int {
	return cmp.Or(
		cmp.Compare(a.Metadata.Tenant, b.Metadata.Tenant),
		cmp.Compare(a.Kind, b.Kind),
		cmp.Compare(a.Metadata.Name, b.Metadata.Name),
	)
}

// SetStatus replaces what was last seen of an object, in memory: the next
// observation makes it again after a restart. An object that is gone has none.
func (s *Store) SetStatus(uid spec.UID, status spec.Status) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.memory.objects[uid]
	if o == nil || o.Status != nil && reflect.DeepEqual(*o.Status, status) {
		return nil
	}
	seen := *o
	seen.Status = &status
	s.memory.objects[uid] = &seen
	s.revision++
	return nil
}

func (m *memory) absent(ref spec.Ref) error {
	err := fault.New(fault.NotFound, "find "+ref.String(), "there is none")
	var names []string
	for known := range m.byRef {
		if known.Kind == ref.Kind && known.Tenant == ref.Tenant {
			names = append(names, known.Name)
		}
	}
	slices.Sort(names)
	if near := spec.Nearest(ref.Name, names); near != "" {
		return err.WithHint("the nearest is %q; gpuhost get %s", near, ref.Kind.Plural())
	}
	return err.WithHint("gpuhost get %s", ref.Kind.Plural())
}

func (s *Store) loadObjects(tx *bolt.Tx, m *memory) error {
	return tx.Bucket([]byte(bucketObjects)).ForEach(func(key, text []byte) error {
		read := &spec.Object{}
		if err := read.UnmarshalStored(text); err != nil {
			return fmt.Errorf("object %s: %w", key, err)
		}
		o, err := s.opened(read)
		if err != nil {
			return err
		}
		m.objects[o.Metadata.UID] = o
		m.byRef[o.Ref()] = o.Metadata.UID
		return nil
	})
}

// putObjects writes objects as they are in memory from then on, but for the status.
func (s *Store) putObjects(tx *bolt.Tx, objects []*spec.Object) error {
	b := tx.Bucket([]byte(bucketObjects))
	for _, o := range objects {
		sealed, err := s.sealed(o)
		if err != nil {
			return err
		}
		plain := *sealed
		plain.Status = nil
		if err := put(b, string(o.Metadata.UID), &plain); err != nil {
			return fmt.Errorf("%s: %w", o.Ref(), err)
		}
	}
	return nil
}

// adopt makes written objects visible. They were nobody else's until now, so
// that the status of this moment can be put in.
func (s *Store) adopt(objects []*spec.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range objects {
		if had := s.memory.objects[o.Metadata.UID]; had != nil {
			o.Status = had.Status
		}
		s.memory.objects[o.Metadata.UID] = o
		s.memory.byRef[o.Ref()] = o.Metadata.UID
	}
	s.revision++
}

// snapshot is every object as stored. Only a writer may rely on it to be the
// latest.
func (s *Store) snapshot() map[spec.UID]*spec.Object {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return maps.Clone(s.memory.objects)
}

// present finds the stored object of a name, nil when there is none.
func (s *Store) present(ref spec.Ref) *spec.Object {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.memory.objects[s.memory.byRef[ref]]
}
