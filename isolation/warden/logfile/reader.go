package logfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Options choose what of a log is read.
type Options struct {
	Since  time.Time // entries from then on; zero is from the oldest
	Tail   int       // the last so many of what is there; 0 is all, negative none
	Follow bool      // go on with what comes, until the folder is removed
}

// Reader reads a log in order, across segments, while it is being written. A
// reader that is overtaken by rotation goes on with the oldest segment there is.
type Reader struct {
	options Options
	root    *os.Root
	watch   *watch // nil unless following

	file *os.File
	seq  uint64 // of file; when file is nil, the segment before the one to open
	off  int64  // of the first byte of buf in file
	buf  []byte // bytes read and not yet returned
	next int    // start of the next record in buf
	gone bool   // the folder is; nothing more will come
}

// Open reads the log in the folder dir.
func Open(dir string, options Options) (*Reader, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	r := &Reader{options: options, root: root}
	if options.Follow {
		// Before looking, so that nothing written in between goes unnoticed.
		if r.watch, err = newWatch(dir); err != nil {
			r.Close()
			return nil, err
		}
	}
	if options.Tail != 0 {
		if err := r.seekTail(max(options.Tail, 0)); err != nil {
			r.Close()
			return nil, err
		}
	}
	return r, nil
}

// Close releases the reader and ends a Next that waits.
func (r *Reader) Close() error {
	if r.watch != nil {
		r.watch.Close()
	}
	if r.file != nil {
		r.file.Close()
	}
	return r.root.Close()
}

// Next returns the next entry, waiting for it when following. The error is
// io.EOF at the end and the context's when it ends first.
func (r *Reader) Next(ctx context.Context) (Entry, error) {
	for {
		record, err := r.record()
		if err == io.EOF && r.options.Follow && !r.gone {
			if err := r.wait(ctx); err != nil {
				return Entry{}, err
			}
			continue
		}
		if err != nil {
			return Entry{}, err
		}
		if e, ok := Parse(record); ok && !e.Time.Before(r.options.Since) {
			return e, nil
		}
	}
}

func (r *Reader) wait(ctx context.Context) error {
	gone, err := r.watch.wait(ctx)
	r.gone = r.gone || gone
	return err
}

// record gives the next whole record; io.EOF when there is none yet.
func (r *Reader) record() ([]byte, error) {
	for {
		if record, ok := r.buffered(); ok {
			return record, nil
		}
		if r.file != nil {
			more, err := r.fill()
			if err != nil || more {
				if err != nil {
					return nil, err
				}
				continue
			}
		}
		if err := r.advance(); err != nil {
			return nil, err
		}
	}
}

func (r *Reader) buffered() ([]byte, bool) {
	i := bytes.IndexByte(r.buf[r.next:], '\n')
	if i < 0 {
		return nil, false
	}
	record := r.buf[r.next : r.next+i]
	r.next += i + 1
	return record, true
}

// fill reads on from the start of the record it holds a part of. The part is
// read again rather than kept: the writer may have taken it back.
func (r *Reader) fill() (more bool, err error) {
	r.off += int64(r.next)
	r.next = 0
	if r.buf == nil {
		r.buf = make([]byte, 0, 2*MaxRecord)
	}
	n, err := r.file.ReadAt(r.buf[:cap(r.buf)], r.off)
	if err != nil && err != io.EOF {
		return false, fmt.Errorf("read log: %w", err)
	}
	r.buf = r.buf[:n]
	if bytes.IndexByte(r.buf, '\n') >= 0 {
		return true, nil
	}
	if n == cap(r.buf) { // no record is that long: skip what is no log
		r.next = n
		return true, nil
	}
	r.buf = r.buf[:0]
	return false, nil
}

// advance goes to the next segment; io.EOF while the present one is the newest.
func (r *Reader) advance() error {
	have, err := segments(r.root)
	if errors.Is(err, os.ErrNotExist) {
		return io.EOF
	}
	if err != nil {
		return err
	}
	for _, seq := range have {
		if seq <= r.seq {
			continue
		}
		if r.file != nil {
			// The present one is finished now: look once more, then leave it.
			if more, err := r.fill(); err != nil || more {
				return err
			}
		}
		return r.open(seq, 0)
	}
	return io.EOF
}

func (r *Reader) open(seq uint64, off int64) error {
	file, err := r.root.Open(segmentName(seq))
	if errors.Is(err, os.ErrNotExist) {
		r.drop(seq) // rotated away in between
		return nil
	}
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	r.drop(seq)
	r.file, r.off = file, off
	return nil
}

func (r *Reader) drop(seq uint64) {
	if r.file != nil {
		r.file.Close()
	}
	r.file, r.seq, r.buf, r.next, r.off = nil, seq, r.buf[:0], 0, 0
}

// seekTail goes to where the last n records begin.
func (r *Reader) seekTail(n int) error {
	have, err := segments(r.root)
	if err != nil {
		return err
	}
	for i := len(have) - 1; i >= 0; i-- {
		if err := r.open(have[i], 0); err != nil {
			return err
		}
		if r.file == nil {
			break // rotated away; the ones after it are all there is
		}
		off, left, err := backwards(r.file, n)
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		r.off = off
		if left == 0 {
			return nil
		}
		n = left
	}
	return nil
}

// backwards finds where the last n records of file begin, and how many of them
// the file does not have.
func backwards(file *os.File, n int) (off int64, left int, err error) {
	end, err := wholeRecords(file)
	if err != nil || n == 0 {
		return end, 0, err
	}
	chunk := make([]byte, 32<<10)
	// The newline that ends record k from the end begins record k-1: n+1 newlines.
	seen := 0
	for end > 0 {
		size := min(end, int64(len(chunk)))
		if _, err := file.ReadAt(chunk[:size], end-size); err != nil && err != io.EOF {
			return 0, 0, err
		}
		for i := size - 1; i >= 0; i-- {
			if chunk[i] != '\n' {
				continue
			}
			if seen++; seen > n {
				return end - size + i + 1, 0, nil
			}
		}
		end -= size
	}
	return 0, n - seen, nil
}
