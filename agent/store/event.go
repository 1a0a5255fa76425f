package store

import (
	"encoding/binary"
	"encoding/json"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

const (
	keptEvents = 10_000 // on disk; the oldest goes first
	// maxWaiting events may wait in memory. After a crash the numbers go on this
	// far beyond the last one on disk, so that none is given twice and a reader's
	// place in the stream stays right.
	maxWaiting = 1_000
)

// Event is one thing that happened. Seq is set by the store; it grows, with a
// gap where the agent was restarted.
type Event struct {
	Seq     uint64    `json:"seq"`
	At      time.Time `json:"at"`
	Type    string    `json:"type"` // normal or warning
	Reason  string    `json:"reason"`
	Message string    `json:"message"`
	Object  spec.Ref  `json:"object,omitzero"`
	UID     spec.UID  `json:"uid,omitempty"`
	Actor   string    `json:"actor,omitempty"`
}

// eventLog is the part of the log that is not on disk yet, and the counters.
type eventLog struct {
	waiting []Event
	last    uint64 // the last number given
	onDisk  int
	next    chan struct{} // closed at the next event; nil while nobody waits
}

// AppendEvent numbers and keeps an event. It can be read at once; it is on disk
// with the next write of anything, a second later at most.
func (s *Store) AppendEvent(e Event) error {
	s.mu.Lock()
	s.log.last++
	e.Seq = s.log.last
	if e.At.IsZero() {
		e.At = s.now()
	}
	s.log.waiting = append(s.log.waiting, e)
	full := len(s.log.waiting) >= maxWaiting
	if s.log.next != nil {
		close(s.log.next)
		s.log.next = nil
	}
	s.flushLater()
	s.mu.Unlock()
	if full {
		return s.Flush()
	}
	return nil
}

// NextEvent gives a channel that is closed when the next event is there. Take it
// before reading, so that none is missed. A slow reader holds up nobody.
func (s *Store) NextEvent() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.log.next == nil {
		s.log.next = make(chan struct{})
	}
	return s.log.next
}

// Events gives up to limit events after the one numbered after, oldest first; 0
// is no limit.
func (s *Store) Events(after uint64, limit int) ([]Event, error) {
	s.mu.RLock()
	waiting := slices.Clone(s.log.waiting)
	s.mu.RUnlock()
	if limit <= 0 {
		limit = keptEvents + len(waiting)
	}
	var found []Event
	err := s.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket([]byte(bucketEvents)).Cursor()
		for key, text := c.Seek(eventKey(after + 1)); key != nil && len(found) < limit; key, text = c.Next() {
			if len(waiting) > 0 && binary.BigEndian.Uint64(key) >= waiting[0].Seq {
				break // written since the copy above was taken
			}
			var e Event
			if err := json.Unmarshal(text, &e); err != nil {
				return err
			}
			found = append(found, e)
		}
		return nil
	})
	for _, e := range waiting {
		if e.Seq > after && len(found) < limit {
			found = append(found, e)
		}
	}
	return found, fault.Wrap(fault.Internal, "read events", err)
}

func eventKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

func (l *eventLog) load(tx *bolt.Tx) error {
	c := tx.Bucket([]byte(bucketEvents)).Cursor()
	for key, _ := c.First(); key != nil; key, _ = c.Next() {
		l.onDisk++
	}
	if key, _ := c.Last(); key != nil {
		l.last = binary.BigEndian.Uint64(key) + maxWaiting
	}
	return nil
}

// writeEvents adds events and drops the oldest beyond the bound.
func writeEvents(tx *bolt.Tx, events []Event, onDisk int) error {
	b := tx.Bucket([]byte(bucketEvents))
	for _, e := range events {
		if err := put(b, string(eventKey(e.Seq)), e); err != nil {
			return err
		}
	}
	c := b.Cursor()
	for excess := onDisk + len(events) - keptEvents; excess > 0; excess-- {
		if key, _ := c.First(); key == nil {
			return nil
		}
		if err := c.Delete(); err != nil {
			return err
		}
	}
	return nil
}
