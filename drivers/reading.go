package drivers

import (
	"context"
	"sync"
	"time"

	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// Which GPUs there are changes rarely, and asking takes a request for each GPU and
// each pair of them, one after the other. So all who want to know within a few
// seconds share one reading. What the GPUs are given to is read from the ledger
// every time, and proofs of a hand-over ask for themselves.
const (
	readingAge = 5 * time.Second
	failureAge = time.Second // of one that failed: a helper that hangs takes seconds to say so
)

// reading is what the GPUs answered, or why they did not.
type reading struct {
	at    time.Time // when it was complete; zero: never
	found gpu.Inventory
	err   error
}

// fresh says whether a reading may be used at that time.
func (r reading) fresh(now time.Time) bool {
	age, limit := now.Sub(r.at), readingAge
	if r.err != nil {
		limit = failureAge
	}
	return !r.at.IsZero() && age >= 0 && age < limit
}

// inventories reads the inventory for all who ask. The zero value lacks its turn.
type inventories struct {
	turn chan struct{} // holds one token: whoever has put it asks, the others wait

	mu      sync.Mutex
	last    reading
	forgets int
}

func (i *inventories) forget() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.last = reading{}
	i.forgets++
}

func (i *inventories) get(ctx context.Context, now func() time.Time, read func(context.Context) (gpu.Inventory, error)) (gpu.Inventory, error) {
	select {
	case i.turn <- struct{}{}:
		defer func() { <-i.turn }()
	case <-ctx.Done():
		return gpu.Inventory{}, ctx.Err()
	}
	i.mu.Lock()
	last, forgets := i.last, i.forgets
	i.mu.Unlock()
	if last.fresh(now()) {
		return last.found, last.err
	}
	found, err := read(ctx)
	i.mu.Lock()
	defer i.mu.Unlock()
	if ctx.Err() == nil && i.forgets == forgets { // a caller's own end says nothing about the GPUs
		i.last = reading{at: now(), found: found, err: err}
	}
	return found, err
}
