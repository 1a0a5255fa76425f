package logfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// Writer appends records to the newest segment. It never fails its caller: what
// a full or broken disk does not take is counted, and the count is written as a
// note once the disk takes records again. One goroutine at a time may use it.
type Writer struct {
	root  *os.Root
	size  int64 // of a segment
	keep  int
	clock func() time.Time

	file *os.File
	seq  uint64
	end  int64 // bytes in file
	have []uint64

	lost Lost
	why  error // the first error since records were last taken
	note []byte
	// syncing holds a token while a finished segment is being flushed.
	syncing chan struct{}
}

// Lost counts what could not be written.
type Lost struct {
	Lines, Bytes int64
}

// NewWriter goes on after what is in the folder root. The writer keeps root and
// closes it.
func NewWriter(root *os.Root) (*Writer, error) {
	return newWriter(root, SegmentSize, Segments, time.Now)
}

func newWriter(root *os.Root, size int64, keep int, clock func() time.Time) (*Writer, error) {
	w := &Writer{root: root, size: size, keep: keep, clock: clock, syncing: make(chan struct{}, 1)}
	have, err := segments(root)
	if err != nil {
		return nil, err
	}
	w.have = have
	if len(have) > 0 {
		w.seq = have[len(have)-1]
	}
	return w, nil
}

// Append writes whole records, lines of them. Losing them is not an error of
// the caller's.
func (w *Writer) Append(records []byte, lines int) {
	if w.lost.Lines > 0 {
		w.note = w.lostNote(w.note[:0])
		if err := w.write(w.note); err != nil {
			w.Lose(Lost{int64(lines), int64(len(records))}, err)
			return
		}
		w.lost, w.why = Lost{}, nil
	}
	if err := w.write(records); err != nil {
		w.Lose(Lost{int64(lines), int64(len(records))}, err)
	}
}

// Lose counts records that will not be written.
func (w *Writer) Lose(n Lost, why error) {
	w.lost.Lines += n.Lines
	w.lost.Bytes += n.Bytes
	if w.why == nil {
		w.why = why
	}
}

// Lost is what has been lost since the last note.
func (w *Writer) Lost() Lost { return w.lost }

// Close flushes and closes the newest segment.
func (w *Writer) Close() error {
	defer w.root.Close()
	if w.lost.Lines > 0 {
		_ = w.write(w.lostNote(nil))
	}
	if w.file == nil {
		return nil
	}
	return errors.Join(w.file.Sync(), w.file.Close())
}

func (w *Writer) lostNote(dst []byte) []byte {
	text := strconv.FormatInt(w.lost.Lines, 10) + " lines, " + strconv.FormatInt(w.lost.Bytes, 10) + " bytes lost: " + w.why.Error()
	return Entry{Time: w.clock(), Stream: Note, Text: []byte(text)}.Append(dst)
}

// write puts all of p at the end of the newest segment or leaves it as it was,
// so that a full disk never leaves half a record.
func (w *Writer) write(p []byte) error {
	if err := w.makeRoom(int64(len(p))); err != nil {
		return err
	}
	n, err := w.file.Write(p)
	if err == nil {
		w.end += int64(n)
		return nil
	}
	if n > 0 && w.file.Truncate(w.end) != nil {
		w.abandon()
	}
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		w.abandon() // a read-only remount, a failing disk: a new descriptor may fare better
	}
	return fmt.Errorf("write log: %w", bare(err))
}

// makeRoom sees to an open segment that takes n more bytes.
func (w *Writer) makeRoom(n int64) error {
	if w.file == nil && w.seq > 0 {
		if err := w.reopen(); err != nil {
			return err
		}
	}
	if w.file != nil && (w.end == 0 || w.end+n <= w.size) {
		return nil
	}
	return w.rotate()
}

// reopen goes on in the newest segment. A record torn by a power cut is cut off.
func (w *Writer) reopen() error {
	file, err := w.root.OpenFile(segmentName(w.seq), os.O_RDWR|os.O_APPEND, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil // somebody removed it; rotate makes the next
	}
	if err != nil {
		return fmt.Errorf("open log: %w", bare(err))
	}
	end, err := wholeRecords(file)
	if err == nil {
		err = file.Truncate(end)
	}
	if err != nil {
		file.Close()
		return fmt.Errorf("mend log: %w", bare(err))
	}
	w.file, w.end = file, end
	return nil
}

// rotate makes the next segment, removing the oldest first: on a full disk that
// is where the room comes from.
func (w *Writer) rotate() error {
	for len(w.have) >= w.keep {
		if err := w.root.Remove(segmentName(w.have[0])); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove oldest log: %w", bare(err))
		}
		w.have = slices.Delete(w.have, 0, 1)
	}
	next, err := w.root.OpenFile(segmentName(w.seq+1), os.O_CREATE|os.O_EXCL|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("make log: %w", bare(err))
	}
	w.finish(w.file)
	w.file, w.end = next, 0
	w.seq++
	w.have = append(w.have, w.seq)
	return nil
}

// finish flushes a full segment without making the tenant wait for the disk. A
// flush that is still under way makes this one the kernel's own business.
func (w *Writer) finish(full *os.File) {
	if full == nil {
		return
	}
	select {
	case w.syncing <- struct{}{}:
	default:
		full.Close()
		return
	}
	go func() {
		_ = full.Sync() // nobody is left to tell; what is lost is a log line after a power cut
		full.Close()
		<-w.syncing
	}()
}

func (w *Writer) abandon() {
	w.file.Close()
	w.file = nil
}

// wholeRecords is the length of file up to its last newline.
func wholeRecords(file *os.File) (int64, error) {
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	tail := make([]byte, min(info.Size(), MaxRecord))
	start := info.Size() - int64(len(tail))
	if _, err := file.ReadAt(tail, start); err != nil && err != io.EOF {
		return 0, err
	}
	for i := len(tail); i > 0; i-- {
		if tail[i-1] == '\n' {
			return start + int64(i), nil
		}
	}
	return start, nil
}

// bare drops the path that os puts into its errors: the note a tenant reads
// names no path of the host.
func bare(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
