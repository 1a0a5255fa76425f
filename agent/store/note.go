package store

import (
	"bytes"
	"fmt"
	"os"

	"github.com/google/renameio/v2"
)

// writeNote says beside the state file, in plain text, who may read it: for the
// scripts of packages, which must refuse a downgrade before they stop the agent that
// has the file open. A note that is true already is not written again, so that a
// full disk keeps no agent from its start.
func (s *Store) writeNote() error {
	if s.options.Volatile {
		return nil
	}
	v, err := s.version()
	if err != nil {
		return err
	}
	path, note := s.path+".version", fmt.Appendf(nil, "schema=%d\nminReader=%d\n", v.Schema, v.MinReader)
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, note) {
		return nil
	}
	return writeFault("write "+path, renameio.WriteFile(path, note, 0o644))
}
