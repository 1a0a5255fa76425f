package store

import (
	"encoding/binary"
	"encoding/json"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// How much history is kept.
const (
	keptEvents  = 10_000
	keptChanges = 1_000
)

// Event is one thing that happened. Seq grows by one with each.
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

// ChangeState is how far a change or a step is.
type ChangeState string

// The states.
const (
	ChangePending    ChangeState = "pending"
	ChangeRunning    ChangeState = "running"
	ChangeDone       ChangeState = "done"
	ChangeFailed     ChangeState = "failed"
	ChangeSuperseded ChangeState = "superseded"
)

// Ended says whether the state is final.
func (s ChangeState) Ended() bool { return s != ChangePending && s != ChangeRunning }

// Change is slow work on one object, with its steps.
type Change struct {
	ID     string       `json:"id"`
	At     time.Time    `json:"at"`
	Actor  string       `json:"actor"`
	Object spec.Ref     `json:"object"`
	Verb   string       `json:"verb"`
	State  ChangeState  `json:"state"`
	Steps  []ChangeStep `json:"steps,omitempty"`
	Error  string       `json:"error,omitempty"`
	Code   fault.Kind   `json:"code,omitempty"`
	Hint   string       `json:"hint,omitempty"`
	// Seq is the change's place in the history, set when it is first stored.
	Seq uint64 `json:"seq"`
}

// ChangeStep is one step of a change.
type ChangeStep struct {
	ID        string         `json:"id"`
	Title     string         `json:"title"`
	Why       string         `json:"why,omitempty"`
	State     ChangeState    `json:"state"`
	StartedAt time.Time      `json:"startedAt,omitzero"`
	Duration  time.Duration  `json:"duration,omitempty"`
	Error     string         `json:"error,omitempty"`
	Progress  *plan.Progress `json:"progress,omitempty"`
}

// eventWatch tells followers that there is a new event.
type eventWatch struct {
	mu   sync.Mutex
	wake chan struct{} // closed at the next event; nil while nobody waits
}

func (w *eventWatch) tell() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wake != nil {
		close(w.wake)
		w.wake = nil
	}
}

// NextEvent gives a channel that is closed when the next event is stored. Take
// it before reading, so that none is missed.
func (s *Store) NextEvent() <-chan struct{} {
	s.events.mu.Lock()
	defer s.events.mu.Unlock()
	if s.events.wake == nil {
		s.events.wake = make(chan struct{})
	}
	return s.events.wake
}

// AppendEvent numbers an event and stores it; the oldest go when there are too
// many.
func (s *Store) AppendEvent(e Event) error {
	err := s.update("store an event", func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(bucketEvents))
		seq, err := b.NextSequence()
		if err != nil {
			return err
		}
		e.Seq = seq
		return ringPut(b, seq, keptEvents, e)
	})
	if err == nil {
		s.events.tell()
	}
	return err
}

// Events gives up to limit events after the one numbered after, oldest first; 0
// is no limit.
func (s *Store) Events(after uint64, limit int) ([]Event, error) {
	var out []Event
	err := s.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket([]byte(bucketEvents)).Cursor()
		for k, text := c.Seek(ringKey(after + 1)); k != nil && (limit == 0 || len(out) < limit); k, text = c.Next() {
			var e Event
			if err := json.Unmarshal(text, &e); err != nil {
				return err
			}
			out = append(out, e)
		}
		return nil
	})
	return out, fault.Wrap(fault.Temporary, "read events", err)
}

// PutChange stores a change; one with the same ID is replaced.
func (s *Store) PutChange(ch *Change) error {
	return s.update("store change "+ch.ID, func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(bucketChanges))
		if ch.Seq == 0 {
			seq, err := b.NextSequence()
			if err != nil {
				return err
			}
			ch.Seq = seq
		}
		return ringPut(b, ch.Seq, keptChanges, ch)
	})
}

// Change gives one change.
func (s *Store) Change(id string) (Change, error) {
	all, err := s.Changes(0)
	if err != nil {
		return Change{}, err
	}
	for _, ch := range all {
		if ch.ID == id {
			return ch, nil
		}
	}
	return Change{}, fault.New(fault.NotFound, "find change "+id, "there is none, or it is too old").WithHint("gpuhost changes")
}

// Changes gives the latest limit changes, newest first; 0 is all that are kept.
func (s *Store) Changes(limit int) ([]Change, error) {
	var out []Change
	err := s.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket([]byte(bucketChanges)).Cursor()
		for k, text := c.Last(); k != nil && (limit == 0 || len(out) < limit); k, text = c.Prev() {
			var ch Change
			if err := json.Unmarshal(text, &ch); err != nil {
				return err
			}
			out = append(out, ch)
		}
		return nil
	})
	return out, fault.Wrap(fault.Temporary, "read changes", err)
}

func ringKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

// ringPut stores value under seq and drops what is more than kept before it.
func ringPut(b *bbolt.Bucket, seq uint64, kept uint64, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if seq > kept {
		c := b.Cursor()
		for k, _ := c.First(); k != nil && binary.BigEndian.Uint64(k) <= seq-kept; k, _ = c.Next() {
			if err := c.Delete(); err != nil {
				return err
			}
		}
	}
	return b.Put(ringKey(seq), text)
}
