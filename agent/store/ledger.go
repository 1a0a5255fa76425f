package store

import (
	"cmp"
	"context"
	"encoding/json"

	"go.etcd.io/bbolt"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// Ledger gives the GPU ledger in this store.
func (s *Store) Ledger() drivers.Ledger { return ledger{s} }

type ledger struct{ store *Store }

// Entries implements drivers.Ledger.
func (l ledger) Entries(context.Context) (map[gpu.UUID]drivers.Entry, error) {
	out := make(map[gpu.UUID]drivers.Entry)
	err := l.store.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucketLedger)).ForEach(func(id, text []byte) error {
			var e drivers.Entry
			err := json.Unmarshal(text, &e)
			out[gpu.UUID(id)] = e
			return err
		})
	})
	return out, fault.Wrap(fault.Temporary, "read the ledger", err)
}

// Transition implements drivers.Ledger: all changes in one transaction, each
// from the state it expects.
func (l ledger) Transition(_ context.Context, changes []drivers.Change) error {
	return l.store.update("write the ledger", func(tx *bbolt.Tx) error {
		for _, c := range changes {
			if err := transition(tx, c); err != nil {
				return err
			}
		}
		return nil
	})
}

func transition(tx *bbolt.Tx, c drivers.Change) error {
	var present drivers.Entry
	if _, err := getJSON(tx, bucketLedger, string(c.To.GPU), &present); err != nil {
		return err
	}
	what := "move " + string(c.To.GPU) + " to " + string(c.To.State)
	switch state := cmp.Or(present.State, drivers.Free); {
	case state != c.From:
		return fault.New(fault.Conflict, what, "it is %s by now, not %s", state, c.From)
	case !drivers.Allowed(c.From, c.To.State):
		return fault.New(fault.Internal, what, "the ledger has no way there from %s", c.From)
	}
	return putJSON(tx, bucketLedger, string(c.To.GPU), c.To)
}
