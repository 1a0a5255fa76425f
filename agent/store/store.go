package store

import (
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// Options are what a store needs from outside. All are mandatory.
type Options struct {
	Now    func() time.Time
	BootID string // written into ledger entries
	Key    []byte // 32 bytes; secrets are sealed with it ([LoadOrCreateKey])
	// Volatile skips fsync: for tests that make stores by the hundred.
	Volatile bool
}

// Store is one open state file. All methods may be called concurrently.
//
// Two locks: writing serialises writers over the whole transaction, mu guards
// the memory for the moment of a copy or a swap. Readers therefore never wait
// for a sync.
type Store struct {
	options Options
	path    string
	db      *bolt.DB
	seal    cipher.AEAD
	reserve reserve

	writing sync.Mutex
	spent   bool // the reserve is missing; guarded by writing

	mu       sync.RWMutex
	memory   memory
	revision uint64 // of objects, statuses and claims
	log      eventLog
	book     changeBook
	flush    *time.Timer // set while something waits
	closed   bool
}

// memory is what the file holds, decoded.
type memory struct {
	objects map[spec.UID]*spec.Object // never changed in place; their status is not in the file
	byRef   map[spec.Ref]spec.UID
	records map[spec.UID]Record
	claims  map[string]map[string]spec.UID // pool, value, owner
	ledger  map[gpu.UUID]drivers.Entry
}

// lockPatience is how long Open waits for an agent that is just ending.
const lockPatience = time.Second

// Open opens or makes the state file at path. It refuses a file that another
// process has open and one that only a newer version may read, and keeps a copy
// before it changes the schema.
func Open(path string, o Options) (*Store, error) { return openWith(path, o, migrations()) }

func openWith(path string, o Options, steps []migration) (*Store, error) {
	seal, err := newSeal(o.Key)
	if err != nil {
		return nil, err
	}
	db, err := openFile(path, o.Volatile)
	if err != nil {
		return nil, err
	}
	s := &Store{options: o, path: path, db: db, seal: seal, reserve: reserve(path + ".reserve")}
	if err := s.prepare(steps); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// openFile turns the library's panics on a damaged file into an error.
func openFile(path string, volatile bool) (db *bolt.DB, err error) {
	defer func() {
		if r := recover(); r != nil {
			db, err = nil, damaged(path, fmt.Errorf("%v", r))
		}
	}()
	db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: lockPatience, FreelistType: bolt.FreelistMapType, NoSync: volatile})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fault.New(fault.Conflict, "open state file "+path, "another agent has it open").
			WithHint("fuser -v %s", path)
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return nil, damaged(path, err)
	case err != nil:
		return nil, writeFault("open state file "+path, err)
	}
	return db, nil
}

func damaged(path string, err error) error {
	return fault.New(fault.Internal, "open state file "+path, "it is damaged: %w", err).
		WithHint("with the agent stopped, put a backup in its place, or a copy that was kept: ls %s.schema*", path)
}

func (s *Store) prepare(steps []migration) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = damaged(s.path, fmt.Errorf("%v", r))
		}
	}()
	if err := s.migrate(steps); err != nil {
		return err
	}
	if err := s.writeNote(); err != nil {
		return err
	}
	if err := s.checkKey(); err != nil {
		return err
	}
	s.memory, s.log, s.book, err = s.load()
	s.spent = !s.reserve.fill()
	return err
}

// load reads everything that is served from memory.
func (s *Store) load() (m memory, log eventLog, book changeBook, err error) {
	m = memory{
		objects: map[spec.UID]*spec.Object{}, byRef: map[spec.Ref]spec.UID{}, records: map[spec.UID]Record{},
		claims: map[string]map[string]spec.UID{}, ledger: map[gpu.UUID]drivers.Entry{},
	}
	err = s.db.View(func(tx *bolt.Tx) error {
		return errors.Join(
			s.loadObjects(tx, &m), loadRecords(tx, &m), loadClaims(tx, &m), loadLedger(tx, &m),
			log.load(tx), book.load(tx),
		)
	})
	return m, log, book, fault.Wrap(fault.Internal, "read state file "+s.path, err)
}

// Close flushes and closes the file. Nothing may be called after it.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	if s.flush != nil {
		s.flush.Stop()
	}
	s.mu.Unlock()
	return errors.Join(s.Flush(), s.db.Close())
}

// Backup writes a consistent copy of the file while the store is in use.
// Secrets stay sealed: without the key file they are lost.
func (s *Store) Backup(w io.Writer) error {
	err := s.db.View(func(tx *bolt.Tx) error {
		_, err := tx.WriteTo(w)
		return err
	})
	return writeFault("back up state file "+s.path, err)
}

func (s *Store) now() time.Time { return s.options.Now().UTC() }
