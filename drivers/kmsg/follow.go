package kmsg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// path is the kernel log. Each read gives one record.
const path = "/dev/kmsg"

// maxRecord is the kernel's own bound on a record.
const maxRecord = 8192

// Follow gives every XID of this boot from a sequence number on, those that the
// kernel still has from before it was called too, until the context ends. It returns
// nil then, and an error when the log cannot be read.
func Follow(ctx context.Context, from uint64, found func(XID)) error {
	// Non-blocking, so that the runtime waits for it and Close ends a Read.
	log, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open kernel log: %w", err)
	}
	defer log.Close()
	stop := context.AfterFunc(ctx, func() { log.Close() })
	defer stop()
	if err := follow(log, from, found); ctx.Err() == nil {
		return err
	}
	return nil
}

// follow reads records until the log ends. EPIPE says that records were
// overwritten before they were read; the next read goes on with the oldest.
func follow(log io.Reader, from uint64, found func(XID)) error {
	record := make([]byte, maxRecord)
	for {
		n, err := log.Read(record)
		switch {
		case errors.Is(err, unix.EPIPE):
			continue
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read kernel log: %w", err)
		}
		if x, is := Parse(string(record[:n])); is && x.Sequence >= from {
			found(x)
		}
	}
}
