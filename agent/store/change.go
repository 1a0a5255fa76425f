package store

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"maps"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
)

const (
	keptChanges = 1_000 // the oldest goes first
	// trimSlack is how many more may gather, so that the oldest are looked for rarely.
	trimSlack = 100
)

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

// changeBook has every kept change in memory and knows which differ from the disk.
type changeBook struct {
	changes map[string]Change
	dirty   map[string]uint64 // the number of the put that the disk does not have
	dropped map[uint64]bool   // on disk, let go in memory
	last    uint64            // the last place given
	puts    uint64
}

// PutChange keeps a change; one with the same ID is replaced. Like an event it
// can be read at once and is on disk with the next write.
func (s *Store) PutChange(ch *Change) error {
	if ch.ID == "" {
		return fault.New(fault.Internal, "store change", "it has no id")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if ch.Seq == 0 {
		s.book.last++
		ch.Seq = s.book.last
	}
	s.book.changes[ch.ID] = ch.clone()
	s.book.puts++
	s.book.dirty[ch.ID] = s.book.puts
	s.book.trim()
	s.flushLater()
	return nil
}

// Change gives one change.
func (s *Store) Change(id string) (Change, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	ch, there := s.book.changes[id]
	if !there {
		return Change{}, fault.New(fault.NotFound, "find change "+id, "there is none, or it is too old").WithHint("gpuhost changes")
	}
	return ch.clone(), nil
}

// Changes gives the latest limit changes, newest first; 0 is all that are kept.
func (s *Store) Changes(limit int) ([]Change, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := s.book.newestFirst()
	if limit > 0 && len(all) > limit {
		all = all[:limit]
	}
	for i := range all {
		all[i] = all[i].clone()
	}
	return all, nil
}

func (b *changeBook) newestFirst() []Change {
	return slices.SortedFunc(maps.Values(b.changes), func(x, y Change) int { return cmp.Compare(y.Seq, x.Seq) })
}

// trim lets the oldest changes go, those under way apart.
func (b *changeBook) trim() {
	if len(b.changes) < keptChanges+trimSlack {
		return
	}
	for _, ch := range b.newestFirst()[keptChanges:] {
		if ch.State.Ended() {
			delete(b.changes, ch.ID)
			delete(b.dirty, ch.ID)
			b.dropped[ch.Seq] = true
		}
	}
}

func (ch Change) clone() Change {
	ch.Steps = slices.Clone(ch.Steps)
	for i, step := range ch.Steps {
		if step.Progress != nil {
			progress := *step.Progress
			ch.Steps[i].Progress = &progress
		}
	}
	return ch
}

func changeKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

func (b *changeBook) load(tx *bolt.Tx) error {
	*b = changeBook{changes: map[string]Change{}, dirty: map[string]uint64{}, dropped: map[uint64]bool{}}
	return tx.Bucket([]byte(bucketChanges)).ForEach(func(_, text []byte) error {
		var ch Change
		err := json.Unmarshal(text, &ch)
		b.changes[ch.ID] = ch
		b.last = max(b.last, ch.Seq)
		return err
	})
}
