package tasklog

import (
	"errors"
	"sync"
	"time"

	"github.com/gpuhost/gpuhost/isolation/warden/logfile"
)

const (
	batchSize = 2 * logfile.MaxRecord
	batches   = 3
	// patience is how long a tenant may be held up by a disk that hangs. A disk
	// that is only slow takes a batch within it and loses nothing.
	patience = time.Second
)

var errHung = errors.New("the disk hangs")

// batch is records on their way to the disk.
type batch struct {
	records []byte
	lines   int
}

// queue stands between the tenant's pipes and the disk. The reader never waits
// for the disk longer than patience, and not at all once it has run out.
type queue struct {
	free, full chan *batch
	done       chan struct{}

	spare   *batch // for what is dropped while the disk hangs
	hanging bool

	mu   sync.Mutex
	lost logfile.Lost
}

// newQueue starts the goroutine that owns w and ends, closing w, after close.
func newQueue(w *logfile.Writer) *queue {
	q := &queue{free: make(chan *batch, batches), full: make(chan *batch, batches), done: make(chan struct{})}
	for range batches {
		q.free <- &batch{}
	}
	q.spare = &batch{}
	go q.write(w)
	return q
}

// get returns an empty batch; the caller gives it back with put.
func (q *queue) get() *batch {
	b := q.take()
	if b.records == nil {
		b.records = make([]byte, 0, batchSize)
	}
	b.records, b.lines = b.records[:0], 0
	return b
}

func (q *queue) take() *batch {
	select {
	case b := <-q.free:
		q.hanging = false
		return b
	default:
	}
	if q.hanging {
		return q.spare
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case b := <-q.free:
		return b
	case <-timer.C:
		q.hanging = true
		return q.spare
	}
}

func (q *queue) put(b *batch) {
	if b != q.spare {
		q.full <- b // never blocks: there are as many places as batches
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lost.Lines += int64(b.lines)
	q.lost.Bytes += int64(len(b.records))
}

// close waits until the disk has everything.
func (q *queue) close() {
	close(q.full)
	<-q.done
}

func (q *queue) write(w *logfile.Writer) {
	defer close(q.done)
	for b := range q.full {
		if lost := q.takeLost(); lost.Lines > 0 {
			w.Lose(lost, errHung)
		}
		w.Append(b.records, b.lines)
		q.free <- b
	}
	if lost := q.takeLost(); lost.Lines > 0 {
		w.Lose(lost, errHung)
	}
	_ = w.Close() // the last flush of a process nobody listens to
}

func (q *queue) takeLost() logfile.Lost {
	q.mu.Lock()
	defer q.mu.Unlock()
	lost := q.lost
	q.lost = logfile.Lost{}
	return lost
}
