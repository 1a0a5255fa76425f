package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// The buckets of the file. Their content is JSON, so that a version may add
// fields without a migration.
//
//	meta     "version" → version, "key" → a sealed constant
//	objects  uid → stored object, secrets sealed
//	records  uid → Record
//	claims   pool, NUL, value → owner's uid
//	ledger   GPU's UUID → drivers.Entry
//	events   sequence number, big-endian → Event
//	changes  time and id → Change
const (
	bucketMeta    = "meta"
	bucketObjects = "objects"
	bucketRecords = "records"
	bucketClaims  = "claims"
	bucketLedger  = "ledger"
	bucketEvents  = "events"
	bucketChanges = "changes"
)

func buckets() []string {
	return []string{bucketMeta, bucketObjects, bucketRecords, bucketClaims, bucketLedger, bucketEvents, bucketChanges}
}

// version says who may read the file. A binary opens every file whose
// MinReader is at most its own schema; a release raises MinReader one release
// after it raised the schema, so the one before it can always read.
type version struct {
	Schema    int `json:"schema"`
	MinReader int `json:"minReader"`
}

// migration turns the schema before it into the next; the first in the list
// leads from schema 1 to 2.
type migration struct {
	minReader int // of the file after this migration
	change    func(*bolt.Tx) error
}

// migrations is empty: schema 1 is the first.
func migrations() []migration { return nil }

// Schema is what this binary reads and writes.
func Schema() int { return len(migrations()) + 1 }

// migrate makes a new file, refuses a newer one and brings up an older one.
func (s *Store) migrate(steps []migration) error {
	own := len(steps) + 1
	have, err := s.version()
	switch {
	case err != nil:
		return fault.Wrap(fault.Internal, "read version of "+s.path, err)
	case have == version{}:
		return s.create(own, steps)
	case have.MinReader > own:
		return s.newer(have, own)
	case have.Schema >= own:
		return nil
	}
	if err := s.keepCopy(have.Schema); err != nil {
		return err
	}
	err = s.db.Update(func(tx *bolt.Tx) error {
		for _, step := range steps[have.Schema-1:] {
			if err := step.change(tx); err != nil {
				return err
			}
			have = version{have.Schema + 1, step.minReader}
		}
		return put(tx.Bucket([]byte(bucketMeta)), "version", have)
	})
	return writeFault(fmt.Sprintf("migrate %s to schema %d", s.path, own), err)
}

func (s *Store) version() (have version, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(bucketMeta))
		if b == nil {
			return nil
		}
		return json.Unmarshal(b.Get([]byte("version")), &have)
	})
	return have, err
}

func (s *Store) create(own int, steps []migration) error {
	v := version{Schema: own, MinReader: 1}
	if len(steps) > 0 {
		v.MinReader = steps[len(steps)-1].minReader
	}
	err := s.db.Update(func(tx *bolt.Tx) error {
		for _, name := range buckets() {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return err
			}
		}
		return put(tx.Bucket([]byte(bucketMeta)), "version", v)
	})
	return writeFault("make state file "+s.path, err)
}

func (s *Store) newer(have version, own int) error {
	hint := "install the newer gpuhost again"
	if copies, _ := filepath.Glob(s.path + ".schema*"); len(copies) > 0 {
		hint += fmt.Sprintf(", or go back to what was before it: cp %s %s", copies[len(copies)-1], s.path)
	}
	return fault.New(fault.Unsupported, "open state file "+s.path,
		"a newer gpuhost wrote it (it needs a reader of schema %d, this one has %d)", have.MinReader, own).
		WithHint("%s", hint)
}

// keepCopy leaves the file as it was beside it, complete and synced before the
// first change.
func (s *Store) keepCopy(schema int) error {
	path := fmt.Sprintf("%s.schema%d", s.path, schema)
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return writeFault("keep copy of state file", err)
	}
	defer os.Remove(file.Name())
	err = s.db.View(func(tx *bolt.Tx) error {
		_, err := tx.WriteTo(file)
		return err
	})
	if err = errors.Join(err, file.Sync(), file.Close()); err == nil {
		err = os.Rename(file.Name(), path)
	}
	return writeFault("keep copy of state file", err)
}
