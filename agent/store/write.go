package store

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"syscall"

	bolt "go.etcd.io/bbolt"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// urgency says whether a write must succeed on a full disk.
type urgency bool

const (
	ordinary urgency = false
	// freeing is for what gives resources back or tells the truth about a task:
	// on a full disk it may use the reserve.
	freeing urgency = true
)

// write runs fn in one synced transaction and takes along what waits in memory,
// unless that is what cannot be written. The caller holds s.writing and changes
// the memory only after nil.
func (s *Store) write(what string, u urgency, fn func(*bolt.Tx) error) error {
	batch := s.takeBatch()
	err := s.db.Update(func(tx *bolt.Tx) error { return errors.Join(fn(tx), batch.write(tx)) })
	if err == nil {
		s.written(batch)
		s.layUp()
		return nil
	}
	if u == freeing {
		err = s.writeAlone(fn)
	}
	if err != nil {
		return s.failed(what, err)
	}
	return nil
}

// writeAlone tries without history, then on the space of the reserve.
func (s *Store) writeAlone(fn func(*bolt.Tx) error) error {
	err := s.db.Update(fn)
	if err == nil || !isFull(err) || !s.reserve.release() {
		return err
	}
	s.spent = true
	return s.db.Update(fn)
}

// layUp makes the reserve again once a write has found space without it.
func (s *Store) layUp() {
	if s.spent {
		s.spent = !s.reserve.fill()
	}
}

// failed makes the memory agree with the file again: where only the last sync
// went wrong the file may hold what the error says it does not.
func (s *Store) failed(what string, err error) error {
	var known *fault.Error
	if errors.As(err, &known) {
		return err
	}
	return errors.Join(writeFault(what, err), s.reload())
}

// reload reads the file again and keeps what is only in memory.
func (s *Store) reload() error {
	fresh, _, _, err := s.load()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for uid, o := range fresh.objects {
		if had := s.memory.objects[uid]; had != nil {
			o.Status = had.Status
		}
	}
	s.memory = fresh
	s.revision++
	return nil
}

// writeFault gives an error of the file system its kind; nil stays nil.
func writeFault(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case isFull(err):
		return (&fault.Error{Kind: fault.Exhausted, What: what, Err: err}).
			WithHint("free space on the file system of the state directory; nothing was changed")
	case errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EIO):
		return &fault.Error{Kind: fault.Temporary, What: what, Err: err}
	case errors.Is(err, os.ErrPermission):
		return &fault.Error{Kind: fault.Forbidden, What: what, Err: err}
	}
	return fault.Wrap(fault.Internal, what, err)
}

// isFull also looks at the text: bbolt drops the errno when it grows the file.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) ||
		strings.Contains(err.Error(), syscall.ENOSPC.Error())
}

// put stores value as JSON.
func put(b *bolt.Bucket, key string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return b.Put([]byte(key), text)
}

// reserve is the path of a file that only takes up space, so that on a full
// disk there is some to give back for what must be written.
type reserve string

const reserveSize = 2 << 20

// fill makes the file and says whether it is there now.
func (r reserve) fill() bool {
	if info, err := os.Stat(string(r)); err == nil && info.Size() == reserveSize {
		return true
	}
	file, err := os.OpenFile(string(r), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return false
	}
	err = syscall.Fallocate(int(file.Fd()), 0, 0, reserveSize)
	if errors.Join(err, file.Close()) != nil {
		os.Remove(string(r))
		return false
	}
	return true
}

// release says whether there was a reserve to give.
func (r reserve) release() bool { return os.Remove(string(r)) == nil }
