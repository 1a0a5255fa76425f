package store

import (
	"context"
	"encoding/json"
	"maps"

	bolt "go.etcd.io/bbolt"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// ledger implements drivers.Ledger on the store.
type ledger struct{ store *Store }

// Ledger is the GPU ledger. Which transition is allowed says [drivers.Allowed].
func (s *Store) Ledger() drivers.Ledger { return ledger{s} }

// Entries implements drivers.Ledger.
func (l ledger) Entries(context.Context) (map[gpu.UUID]drivers.Entry, error) {
	l.store.mu.RLock()
	defer l.store.mu.RUnlock()
	copied := make(map[gpu.UUID]drivers.Entry, len(l.store.memory.ledger))
	for id, e := range l.store.memory.ledger {
		copied[id] = cloneEntry(e)
	}
	return copied, nil
}

// Transition implements drivers.Ledger. It works on a full disk: a GPU on its
// way through hand-over must not stand still there.
func (l ledger) Transition(ctx context.Context, changes []drivers.Change) error {
	s := l.store
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := ctx.Err(); err != nil {
		return fault.Wrap(fault.Timeout, "write GPU ledger", err)
	}
	s.mu.RLock()
	after := maps.Clone(s.memory.ledger)
	s.mu.RUnlock()
	written := map[gpu.UUID]drivers.Entry{}
	for _, c := range changes {
		if err := l.allowed(after, c); err != nil {
			return err
		}
		e := l.stamped(c.To)
		after[e.GPU], written[e.GPU] = e, e
	}
	if len(written) == 0 {
		return nil
	}
	err := s.write("write GPU ledger", freeing, func(tx *bolt.Tx) error {
		for id, e := range written {
			if err := put(tx.Bucket([]byte(bucketLedger)), string(id), e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.memory.ledger = after
	return nil
}

func (l ledger) allowed(have map[gpu.UUID]drivers.Entry, c drivers.Change) error {
	present := drivers.Free
	if e, there := have[c.To.GPU]; there {
		present = e.State
	}
	what := "write GPU ledger: " + string(c.To.GPU)
	switch {
	case c.To.GPU == "":
		return fault.New(fault.Internal, what, "an entry names no GPU")
	case present != c.From:
		return fault.New(fault.Conflict, what, "it is %s, not %s", present, c.From)
	case !drivers.Allowed(c.From, c.To.State):
		return fault.New(fault.Internal, what, "no way leads from %s to %s", c.From, c.To.State)
	}
	return nil
}

// stamped fills in the boot and the time where the caller left them out.
func (l ledger) stamped(e drivers.Entry) drivers.Entry {
	if e.BootID == "" {
		e.BootID = l.store.options.BootID
	}
	if e.Since.IsZero() {
		e.Since = l.store.now()
	}
	return cloneEntry(e)
}

func cloneEntry(e drivers.Entry) drivers.Entry {
	if e.Facts != nil {
		facts := *e.Facts
		e.Facts = &facts
	}
	return e
}

func loadLedger(tx *bolt.Tx, m *memory) error {
	return tx.Bucket([]byte(bucketLedger)).ForEach(func(key, text []byte) error {
		var e drivers.Entry
		err := json.Unmarshal(text, &e)
		m.ledger[gpu.UUID(key)] = e
		return err
	})
}
