package store

import (
	"bytes"
	"context"
	"maps"
	"time"

	"go.etcd.io/bbolt"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// Record is what is remembered of an instance's runs.
type Record struct {
	Pid        int              `json:"pid,omitempty"` // of the last task seen running
	Started    time.Time        `json:"started,omitzero"`
	Restarts   int              `json:"restarts,omitempty"`
	LastExit   *spec.ExitStatus `json:"lastExit,omitempty"`
	EndedRun   string           `json:"endedRun,omitempty"`   // the run that ended by itself
	NotBefore  time.Time        `json:"notBefore,omitzero"`   // of the next try
	FailStreak int              `json:"failStreak,omitempty"` // tries in a row that ended soon
}

// Record gives what is remembered of an instance; nothing, the zero Record.
func (s *Store) Record(uid spec.UID) (Record, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.records[uid], nil
}

// UpdateRecord changes what is remembered and returns once it is on disk. An
// object that is gone remembers nothing.
func (s *Store) UpdateRecord(uid spec.UID, change func(*Record)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.objects[uid]; !there {
		return nil
	}
	r := s.records[uid]
	change(&r)
	if err := s.update("record "+string(uid), func(tx *bbolt.Tx) error { return putJSON(tx, bucketRecords, string(uid), r) }); err != nil {
		return err
	}
	s.records[uid] = r
	return nil
}

// Claims: a value of a pool has one owner at most.

func claimKey(pool, value string) []byte { return []byte(pool + "\x00" + value) }

func splitClaim(key []byte) (pool, value string) {
	before, after, _ := bytes.Cut(key, []byte{0})
	return string(before), string(after)
}

func (s *Store) rememberClaim(pool, value string, owner spec.UID) {
	if s.claims[pool] == nil {
		s.claims[pool] = make(map[string]spec.UID)
	}
	s.claims[pool][value] = owner
}

// Claim gives a value of a pool to owner. Another owner's value is a conflict;
// claiming one's own again changes nothing.
func (s *Store) Claim(_ context.Context, pool, value string, owner spec.UID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch held, there := s.claims[pool][value]; {
	case there && held == owner:
		return nil
	case there:
		return fault.New(fault.Conflict, "claim "+value+" of "+pool, "%s has it", held)
	}
	err := s.update("claim "+value+" of "+pool, func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucketClaims)).Put(claimKey(pool, value), []byte(owner))
	})
	if err != nil {
		return err
	}
	s.rememberClaim(pool, value, owner)
	return nil
}

// Claims lists a pool's values with their owners.
func (s *Store) Claims(pool string) (map[string]spec.UID, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return maps.Clone(s.claims[pool]), nil
}

// ReleaseAll gives back everything owner claimed, in all pools.
func (s *Store) ReleaseAll(owner spec.UID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	type claim struct{ pool, value string }
	var mine []claim
	for pool, values := range s.claims {
		for value, who := range values {
			if who == owner {
				mine = append(mine, claim{pool, value})
			}
		}
	}
	if len(mine) == 0 {
		return nil
	}
	err := s.update("release the claims of "+string(owner), func(tx *bbolt.Tx) error {
		for _, c := range mine {
			if err := tx.Bucket([]byte(bucketClaims)).Delete(claimKey(c.pool, c.value)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, c := range mine {
		delete(s.claims[c.pool], c.value)
	}
	return nil
}
