package store

import (
	"bytes"
	"context"
	"maps"

	bolt "go.etcd.io/bbolt"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// Claim gives a value of a pool (an address, a uid range) to owner until it is
// released. An owner has one value of a pool: another owner's value, and a second
// one, are conflicts; claiming one's own again changes nothing. It is on disk when
// it returns.
func (s *Store) Claim(ctx context.Context, pool, value string, owner spec.UID) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	what := "claim " + value + " of " + pool
	if err := ctx.Err(); err != nil {
		return fault.Wrap(fault.Timeout, what, err)
	}
	s.mu.RLock()
	held := s.memory.claims[pool][value]
	s.mu.RUnlock()
	switch {
	case pool == "" || value == "" || owner == "":
		return fault.New(fault.Internal, what, "pool, value and owner %q must all be given", owner)
	case held == owner:
		return nil
	case held != "":
		return fault.New(fault.Conflict, what, "%s has it", held)
	}
	// Two lanes of one owner may choose at the same time, and not the same.
	if own, has := s.ClaimOf(pool, owner); has {
		return fault.New(fault.Conflict, what, "%s has %s of it", owner, own)
	}
	err := s.write(what, ordinary, func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(bucketClaims)).Put(claimKey(pool, value), []byte(owner))
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.memory.remember(pool, value, owner)
	s.revision++
	return nil
}

// Claims gives a pool's values with their owners.
func (s *Store) Claims(pool string) (map[string]spec.UID, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return maps.Clone(s.memory.claims[pool]), nil
}

// ClaimOf gives the value of a pool that owner has.
func (s *Store) ClaimOf(pool string, owner spec.UID) (value string, has bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for value, who := range s.memory.claims[pool] {
		if who == owner {
			return value, true
		}
	}
	return "", false
}

// Release gives back all that owner claimed of one pool. It works on a full disk.
func (s *Store) Release(owner spec.UID, pool string) error {
	return s.release(owner, func(name string) bool { return name == pool })
}

// ReleaseAll gives back all that owner claimed, of all pools.
func (s *Store) ReleaseAll(owner spec.UID) error {
	return s.release(owner, func(string) bool { return true })
}

// claim is one value of a pool.
type claim struct{ pool, value string }

func (s *Store) release(owner spec.UID, concerned func(pool string) bool) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	own := s.claimsOf(owner, concerned)
	if len(own) == 0 {
		return nil
	}
	err := s.write("release the claims of "+string(owner), freeing, func(tx *bolt.Tx) error {
		for _, c := range own {
			if err := tx.Bucket([]byte(bucketClaims)).Delete(claimKey(c.pool, c.value)); err != nil {
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
	for _, c := range own {
		delete(s.memory.claims[c.pool], c.value)
	}
	s.revision++
	return nil
}

func (s *Store) claimsOf(owner spec.UID, concerned func(pool string) bool) []claim {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var own []claim
	for pool, values := range s.memory.claims {
		for value, who := range values {
			if who == owner && concerned(pool) {
				own = append(own, claim{pool, value})
			}
		}
	}
	return own
}

func (m *memory) remember(pool, value string, owner spec.UID) {
	if m.claims[pool] == nil {
		m.claims[pool] = map[string]spec.UID{}
	}
	m.claims[pool][value] = owner
}

func claimKey(pool, value string) []byte { return []byte(pool + "\x00" + value) }

func loadClaims(tx *bolt.Tx, m *memory) error {
	return tx.Bucket([]byte(bucketClaims)).ForEach(func(key, owner []byte) error {
		pool, value, _ := bytes.Cut(key, []byte{0})
		m.remember(string(pool), string(value), spec.UID(owner))
		return nil
	})
}
