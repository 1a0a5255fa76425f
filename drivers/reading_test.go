package drivers_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/drivers/drivertest"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// slowNVML takes a second for an answer and counts how often it was asked.
type slowNVML struct {
	*drivertest.Host
	mu    sync.Mutex
	asked int
	fails bool
}

func (n *slowNVML) Inventory(ctx context.Context) (gpu.Inventory, error) {
	n.mu.Lock()
	n.asked++
	fails := n.fails
	n.mu.Unlock()
	time.Sleep(time.Second)
	if fails {
		return gpu.Inventory{}, fault.New(fault.Timeout, "ask", "it hangs")
	}
	return n.Host.Inventory(ctx)
}

func TestWhoAsksAtOneTimeSharesAReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := drivertest.NewHost(haveOf(t, "a.......").Inventory)
		n := &slowNVML{Host: h}
		r := drivers.New(drivers.Deps{NVML: n, Ledger: h, Holders: h, BootID: boot})
		crowd := func(what string, asked int) {
			t.Helper()
			before := n.asked
			var group sync.WaitGroup
			for range 20 {
				group.Go(func() {
					if have, err := r.Observe(t.Context()); err == nil != !n.fails || err == nil && len(have.Inventory.Devices) != 8 {
						t.Errorf("%s: %d devices, %v", what, len(have.Inventory.Devices), err)
					}
				})
			}
			group.Wait()
			if got := n.asked - before; got != asked {
				t.Errorf("%s: asked %d times, want %d", what, got, asked)
			}
		}
		n.fails = true
		crowd("a helper that hangs", 1)
		n.fails = false
		time.Sleep(time.Second)
		crowd("a new reading", 1)
		crowd("a moment later", 0)
		time.Sleep(5 * time.Second)
		crowd("much later", 1)
		r.Forget()
		crowd("after an event", 1)
	})
}

// What happens while the GPUs are being asked may not be in their answer.
func TestAReadingThatSomethingHappenedInIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := drivertest.NewHost(haveOf(t, "........").Inventory)
		n := &slowNVML{Host: h}
		r := drivers.New(drivers.Deps{NVML: n, Ledger: h, Holders: h, BootID: boot})
		go func() { time.Sleep(500 * time.Millisecond); r.Forget() }()
		for range 2 {
			if _, err := r.Observe(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if n.asked != 2 {
			t.Errorf("asked %d times, want 2", n.asked)
		}
	})
}
