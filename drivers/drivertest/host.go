// Package drivertest is a pretend world for the ports of package drivers, with
// faults to inject, and the contracts that a fake and the real thing must both
// keep.
package drivertest

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// Host implements NVML, Ledger, Holders, Servants and Resetter in memory. Its fields may be
// changed between calls.
type Host struct {
	mu      sync.Mutex
	GPUs    gpu.Inventory
	Used    map[gpu.UUID]uint64            // bytes of memory in use
	Unknown map[gpu.UUID]Unknown           // what NVML cannot say
	Own     map[int]bool                   // pids of the host's own servants
	Busy    map[gpu.UUID]int               // processes only NVML sees
	Open    map[uint32][]drivers.Holder    // who holds /dev/nvidia<minor>
	Ledger  map[gpu.UUID]drivers.Entry     // what is persisted
	History []drivers.Change               // every transition that was written
	Fail    func(operation string) error   // asked before each operation; nil never fails
	Wrote   func(changes []drivers.Change) // told of each write, under the lock
}

// Unknown is what NVML cannot say of a GPU that it knows.
type Unknown struct{ Memory, Processes bool }

// NewHost makes a host with these GPUs and an empty ledger.
func NewHost(inventory gpu.Inventory) *Host {
	return &Host{
		GPUs: inventory, Used: map[gpu.UUID]uint64{}, Busy: map[gpu.UUID]int{}, Unknown: map[gpu.UUID]Unknown{}, Own: map[int]bool{},
		Open: map[uint32][]drivers.Holder{}, Ledger: map[gpu.UUID]drivers.Entry{},
	}
}

func (h *Host) fail(operation string) error {
	if h.Fail == nil {
		return nil
	}
	return h.Fail(operation)
}

// Inventory implements drivers.NVML.
func (h *Host) Inventory(context.Context) (gpu.Inventory, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.fail("inventory"); err != nil {
		return gpu.Inventory{}, err
	}
	copied := h.GPUs
	copied.Devices = slices.Clone(h.GPUs.Devices)
	return copied, nil
}

// Samples implements drivers.NVML.
func (h *Host) Samples(context.Context) ([]gpu.Sample, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.fail("samples"); err != nil {
		return nil, err
	}
	var samples []gpu.Sample
	for _, d := range h.GPUs.Devices {
		s := gpu.Sample{UUID: d.UUID}
		if used := h.Used[d.UUID]; !h.Unknown[d.UUID].Memory {
			s.MemoryUsedBytes = &used
		}
		if busy := h.Busy[d.UUID]; !h.Unknown[d.UUID].Processes {
			s.Processes = &busy
		}
		samples = append(samples, s)
	}
	return samples, nil
}

// Holders implements drivers.Holders.
func (h *Host) Holders(_ context.Context, _, minor uint32) ([]drivers.Holder, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.Open[minor]), h.fail("holders")
}

// Servant implements drivers.Servants.
func (h *Host) Servant(_ context.Context, holder drivers.Holder) (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.Own[holder.PID], h.fail("servant")
}

// Reset implements drivers.Resetter.
func (h *Host) Reset(context.Context, gpu.Device) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.fail("reset")
}

// Entries implements drivers.Ledger.
func (h *Host) Entries(context.Context) (map[gpu.UUID]drivers.Entry, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.Ledger), h.fail("entries")
}

// Transition implements drivers.Ledger.
func (h *Host) Transition(_ context.Context, changes []drivers.Change) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.fail("transition"); err != nil {
		return err
	}
	for _, c := range changes {
		if err := h.check(c); err != nil {
			return err
		}
	}
	for _, c := range changes {
		h.Ledger[c.To.GPU] = c.To
	}
	h.History = append(h.History, changes...)
	if h.Wrote != nil {
		h.Wrote(changes)
	}
	return h.fail("transitioned")
}

func (h *Host) check(c drivers.Change) error {
	have := drivers.Free
	if e, there := h.Ledger[c.To.GPU]; there {
		have = e.State
	}
	if have != c.From || !drivers.Allowed(c.From, c.To.State) {
		return fault.New(fault.Conflict, "change GPU ledger", "%s is %s, not to become %s from %s", c.To.GPU, have, c.To.State, c.From)
	}
	return nil
}
