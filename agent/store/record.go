package store

import (
	"encoding/json"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network"
)

// Record is what is remembered of an instance's runs, because nothing on the
// host tells it again.
type Record struct {
	Pid        int              `json:"pid,omitempty"` // of the last task seen running
	Started    time.Time        `json:"started,omitzero"`
	Restarts   int              `json:"restarts,omitempty"`
	LastExit   *spec.ExitStatus `json:"lastExit,omitempty"`
	EndedRun   string           `json:"endedRun,omitempty"`   // the run that ended by itself
	FencedRun  string           `json:"fencedRun,omitempty"`  // the run in which an isolation control failed
	NotBefore  time.Time        `json:"notBefore,omitzero"`   // of the next try
	FailStreak int              `json:"failStreak,omitempty"` // tries in a row that ended soon
	Traffic    network.Meter    `json:"traffic,omitzero"`     // of all its runs
}

// Record gives what is remembered of an instance; nothing, the zero Record.
func (s *Store) Record(uid spec.UID) (Record, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.memory.records[uid].clone(), nil
}

// UpdateRecord changes what is remembered and returns once it is on disk, on a
// full disk as well. An object that is gone remembers nothing. change must not
// call the store.
func (s *Store) UpdateRecord(uid spec.UID, change func(*Record)) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.RLock()
	_, there := s.memory.objects[uid]
	r := s.memory.records[uid].clone()
	s.mu.RUnlock()
	if !there {
		return nil
	}
	change(&r)
	r = r.clone()
	err := s.write("record "+string(uid), freeing, func(tx *bolt.Tx) error {
		return put(tx.Bucket([]byte(bucketRecords)), string(uid), r)
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.memory.records[uid] = r
	return nil
}

func (r Record) clone() Record {
	if r.LastExit != nil {
		exit := *r.LastExit
		r.LastExit = &exit
	}
	return r
}

func loadRecords(tx *bolt.Tx, m *memory) error {
	return tx.Bucket([]byte(bucketRecords)).ForEach(func(key, text []byte) error {
		var r Record
		err := json.Unmarshal(text, &r)
		m.records[spec.UID(key)] = r
		return err
	})
}
