package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// The state file's version. A binary opens any file whose minReader is not above
// its own schema.
const (
	schema    = 1
	minReader = 1
)

// lockWait is how long Open waits for another agent's lock.
const lockWait = time.Second

// Buckets of the file.
const (
	bucketMeta    = "meta"
	bucketObjects = "objects" // uid -> object, JSON
	bucketRecords = "records" // uid -> Record, JSON
	bucketClaims  = "claims"  // pool NUL value -> owner
	bucketLedger  = "ledger"  // GPU uuid -> drivers.Entry, JSON
	bucketEvents  = "events"  // sequence, big endian -> Event, JSON
	bucketChanges = "changes" // sequence, big endian -> Change, JSON
)

// Options are what a store is opened with.
type Options struct {
	Now    func() time.Time
	BootID string
	Key    []byte // 32 bytes; secrets are sealed with it
}

// Store is the open journal. It is safe for concurrent use.
type Store struct {
	db  *bbolt.DB
	now func() time.Time
	key []byte

	mu      sync.RWMutex // guards all below; writers hold it over their transaction
	objects map[spec.UID]*spec.Object
	byRef   map[spec.Ref]spec.UID
	records map[spec.UID]Record
	claims  map[string]map[string]spec.UID

	events eventWatch
}

// Open opens the file at path or makes it. A file of a newer version, and one
// that another agent has open, are refused.
func Open(path string, o Options) (*Store, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait, FreelistType: bbolt.FreelistMapType})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fault.New(fault.Conflict, "open "+path, "another agent has it open").
			WithHint("systemctl status gpuhost; two agents need two --root folders")
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	s := &Store{db: db, now: o.Now, key: o.Key}
	if err := s.load(path); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// Close ends the use of the file.
func (s *Store) Close() error { return s.db.Close() }

// version is the record that says who may read the file.
type version struct {
	Schema    int `json:"schema"`
	MinReader int `json:"minReader"`
}

func (s *Store) load(path string) error {
	if err := s.checkVersion(path); err != nil {
		return err
	}
	err := s.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range []string{bucketMeta, bucketObjects, bucketRecords, bucketClaims, bucketLedger, bucketEvents, bucketChanges} {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return err
			}
		}
		return putJSON(tx, bucketMeta, "version", version{Schema: schema, MinReader: minReader})
	})
	if err != nil {
		return fmt.Errorf("prepare %s: %w", path, err)
	}
	return s.db.View(s.read)
}

func (s *Store) checkVersion(path string) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		var v version
		found, err := getJSON(tx, bucketMeta, "version", &v)
		if err != nil || !found || v.MinReader <= schema {
			return err
		}
		return fault.New(fault.Unsupported, "open "+path,
			"it was written by a newer gpuhost (schema %d, readable from %d on) and this one reads up to %d", v.Schema, v.MinReader, schema).
			WithHint("install the newer gpuhost again; or gpuhost restore the copy made before its upgrade")
	})
}

// read fills the memory from the file.
func (s *Store) read(tx *bbolt.Tx) error {
	s.objects = make(map[spec.UID]*spec.Object)
	s.byRef = make(map[spec.Ref]spec.UID)
	s.records = make(map[spec.UID]Record)
	s.claims = make(map[string]map[string]spec.UID)
	err := tx.Bucket([]byte(bucketObjects)).ForEach(func(_, text []byte) error {
		o, err := s.unseal(text)
		if err != nil {
			return err
		}
		s.remember(o)
		return nil
	})
	if err != nil {
		return err
	}
	err = tx.Bucket([]byte(bucketRecords)).ForEach(func(uid, text []byte) error {
		var r Record
		err := json.Unmarshal(text, &r)
		s.records[spec.UID(uid)] = r
		return err
	})
	if err != nil {
		return err
	}
	return tx.Bucket([]byte(bucketClaims)).ForEach(func(key, owner []byte) error {
		pool, value := splitClaim(key)
		s.rememberClaim(pool, value, spec.UID(owner))
		return nil
	})
}

func (s *Store) remember(o *spec.Object) {
	s.objects[o.Metadata.UID] = o
	s.byRef[o.Ref()] = o.Metadata.UID
}

func (s *Store) forget(o *spec.Object) {
	delete(s.objects, o.Metadata.UID)
	if s.byRef[o.Ref()] == o.Metadata.UID {
		delete(s.byRef, o.Ref())
	}
}

// update runs a transaction and turns the file system's errors into faults.
func (s *Store) update(what string, f func(*bbolt.Tx) error) error {
	err := s.db.Update(f)
	var known *fault.Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	return fault.Wrap(fault.Temporary, what, err)
}

func putJSON(tx *bbolt.Tx, bucket, key string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode %s %s: %w", bucket, key, err)
	}
	return tx.Bucket([]byte(bucket)).Put([]byte(key), text)
}

// getJSON reads one value; false when it, or its bucket, is not there.
func getJSON(tx *bbolt.Tx, bucket, key string, into any) (bool, error) {
	b := tx.Bucket([]byte(bucket))
	if b == nil {
		return false, nil
	}
	text := b.Get([]byte(key))
	if text == nil {
		return false, nil
	}
	if err := json.Unmarshal(text, into); err != nil {
		return false, fmt.Errorf("decode %s %s: %w", bucket, key, err)
	}
	return true, nil
}

// LoadOrCreateKey reads the key that secrets are sealed with, and makes it the
// first time. It lies outside the state file, readable by root alone.
func LoadOrCreateKey(path string) ([]byte, error) {
	key, err := os.ReadFile(path)
	if err == nil && len(key) == keySize {
		return key, nil
	}
	if err == nil {
		return nil, fault.New(fault.Invalid, "read key "+path, "it has %d bytes, not %d", len(key), keySize).
			WithHint("restore it from a backup; without it the stored secrets cannot be read")
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read key: %w", err)
	}
	return createKey(path)
}
