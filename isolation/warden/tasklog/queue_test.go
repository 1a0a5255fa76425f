package tasklog

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/gpuhost/gpuhost/isolation/warden/logfile"
)

// A disk that hangs holds the tenant up once, for the patience, and then not at
// all; what is dropped is counted, and a disk that wakes takes records again.
func TestHangingDiskDoesNotHoldTheTenant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &queue{free: make(chan *batch, batches), full: make(chan *batch, batches), spare: &batch{}}
		start := time.Now()
		for i := range 5 {
			b := q.get()
			b.records, b.lines = append(b.records, "xyz\n"...), 1
			q.put(b)
			if waited := time.Since(start); waited != patience {
				t.Errorf("after batch %d the tenant has waited %v, want %v", i, waited, patience)
			}
		}
		if lost := q.takeLost(); lost != (logfile.Lost{Lines: 5, Bytes: 20}) {
			t.Errorf("lost %+v", lost)
		}
		awake := &batch{}
		q.free <- awake
		if got := q.get(); got != awake || q.hanging {
			t.Error("a disk that is back is not used")
		}
	})
}

// A disk that is only slow loses nothing.
func TestSlowDiskLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &queue{free: make(chan *batch, batches), full: make(chan *batch, batches), spare: &batch{}}
		go func() {
			for range 5 {
				time.Sleep(patience / 2)
				q.free <- &batch{}
			}
		}()
		for range 5 {
			if q.get() == q.spare {
				t.Error("a batch was dropped")
			}
		}
	})
}
