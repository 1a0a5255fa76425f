package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// maxLog bounds containerd's log and the one before it, each: both lie in memory.
const (
	maxLog      = 4 << 20
	logInterval = time.Minute
)

// logFlags are how containerd has its log open.
const logFlags = os.O_CREATE | os.O_WRONLY | os.O_APPEND

// boundLog keeps containerd's log small for as long as ctx lives. containerd itself
// cannot: it writes to a file that it was given, and outlives whoever gave it.
func (s *Supervisor) boundLog(ctx context.Context) {
	for wait(ctx, logInterval) {
		if err := trim(s.config.logFile(), maxLog); err != nil {
			s.config.Log.Warn("bound containerd's log", "error", err)
		}
	}
}

// trim empties a file that is larger than limit, and keeps its end beside it. The
// writer has it open to append, and goes on at the beginning.
func trim(file string, limit int64) error {
	log, err := os.OpenFile(file, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer log.Close()
	info, err := log.Stat()
	if err != nil || info.Size() <= limit {
		return err
	}
	old, err := os.OpenFile(file+".1", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer old.Close()
	if _, err := io.Copy(old, io.NewSectionReader(log, info.Size()-limit, limit)); err != nil {
		return fmt.Errorf("keep the end of %s: %w", file, err)
	}
	return log.Truncate(0)
}
