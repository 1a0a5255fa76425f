package store

import (
	"errors"
	"maps"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// Events and changes are many, small and told again by the next look at the
// host, so they do not pay for a sync of their own: they go to disk with the
// next write, or when the timer of the oldest runs out.

// flushAfter is how long something may wait.
const flushAfter = time.Second

// batch is what one transaction takes along.
type batch struct {
	events  []Event
	onDisk  int
	changes []Change
	puts    map[string]uint64 // of changes, by id
	dropped map[uint64]bool
}

// Flush writes what waits in memory.
func (s *Store) Flush() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.RLock()
	idle := s.idle()
	s.mu.RUnlock()
	if idle {
		return nil
	}
	err := s.write("store events and changes", ordinary, func(*bolt.Tx) error { return nil })
	if fault.Is(err, fault.Exhausted) {
		s.shed()
	}
	return err
}

func (s *Store) idle() bool {
	return len(s.log.waiting) == 0 && len(s.book.dirty) == 0 && len(s.book.dropped) == 0
}

// flushLater sets the timer, unless it runs. The caller holds s.mu. A flush that
// fails (the disk is full) is tried again when the timer runs out.
func (s *Store) flushLater() {
	if s.flush != nil || s.closed {
		return
	}
	s.flush = time.AfterFunc(flushAfter, func() {
		_ = s.Flush() // what failed still waits, and the next write that matters says why
		s.mu.Lock()
		defer s.mu.Unlock()
		s.flush = nil
		if !s.idle() {
			s.flushLater()
		}
	})
}

// shed keeps a full disk from filling the memory: the oldest waiting events go.
func (s *Store) shed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if excess := len(s.log.waiting) - maxWaiting/2; excess > 0 {
		s.log.waiting = slices.Clone(s.log.waiting[excess:])
	}
}

func (s *Store) takeBatch() batch {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b := batch{events: slices.Clone(s.log.waiting), onDisk: s.log.onDisk, dropped: maps.Clone(s.book.dropped), puts: maps.Clone(s.book.dirty)}
	for id := range s.book.dirty {
		b.changes = append(b.changes, s.book.changes[id])
	}
	return b
}

func (b batch) write(tx *bolt.Tx) error {
	if err := writeEvents(tx, b.events, b.onDisk); err != nil {
		return err
	}
	var errs []error
	changes := tx.Bucket([]byte(bucketChanges))
	for seq := range b.dropped {
		errs = append(errs, changes.Delete(changeKey(seq)))
	}
	for _, ch := range b.changes {
		errs = append(errs, put(changes, string(changeKey(ch.Seq)), ch))
	}
	return errors.Join(errs...)
}

// written forgets what is on disk now; what was put again meanwhile stays dirty.
func (s *Store) written(b batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log.waiting = slices.Clone(s.log.waiting[min(len(b.events), len(s.log.waiting)):])
	s.log.onDisk = min(s.log.onDisk+len(b.events), keptEvents)
	for seq := range b.dropped {
		delete(s.book.dropped, seq)
	}
	maps.DeleteFunc(s.book.dirty, func(id string, put uint64) bool { return b.puts[id] == put })
}
