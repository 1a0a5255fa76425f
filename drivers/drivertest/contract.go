package drivertest

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// NVMLContract is what everything that answers for NVML must keep: a pretend
// host, the helper with a simulated one, and a real GPU.
func NVMLContract(t *testing.T, n drivers.NVML) {
	t.Helper()
	inventory, err := n.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Run("identities are whole and unlike", func(t *testing.T) { checkIdentities(t, inventory) })
	t.Run("links join known devices once", func(t *testing.T) { checkLinks(t, inventory) })
	t.Run("the inventory is stable", func(t *testing.T) {
		again, err := n.Inventory(t.Context())
		if diff := cmp.Diff(inventory, again); err != nil || diff != "" {
			t.Errorf("error %v (-first +second):\n%s", err, diff)
		}
	})
	t.Run("every device is sampled", func(t *testing.T) { checkSamples(t, n, inventory) })
}

func checkIdentities(t *testing.T, inventory gpu.Inventory) {
	seen := map[string]bool{}
	for i, d := range inventory.Devices {
		if _, err := gpu.ParseUUID(string(d.UUID)); err != nil {
			t.Error(err)
		}
		if p, err := gpu.ParsePCIAddress(string(d.PCI)); err != nil || p != d.PCI {
			t.Errorf("address %q reads as %q, %v", d.PCI, p, err)
		}
		if d.Index != i || d.Model == "" || d.MemoryBytes == 0 {
			t.Errorf("device %d is not whole: %+v", i, d)
		}
		if seen[string(d.UUID)] || seen[string(d.PCI)] {
			t.Errorf("device %d is there twice: %+v", i, d)
		}
		seen[string(d.UUID)], seen[string(d.PCI)] = true, true
	}
}

func checkLinks(t *testing.T, inventory gpu.Inventory) {
	known := map[gpu.UUID]bool{}
	for _, d := range inventory.Devices {
		known[d.UUID] = true
	}
	pairs := map[[2]gpu.UUID]bool{}
	for _, l := range inventory.Links {
		pair := [2]gpu.UUID{min(l.A, l.B), max(l.A, l.B)}
		if l.A == l.B || !known[l.A] || !known[l.B] || pairs[pair] {
			t.Errorf("link %+v joins no two devices, or again", l)
		}
		if (l.Kind == gpu.LinkNVLink) != (l.Lanes > 0) {
			t.Errorf("link %+v: lanes are NVLink's alone", l)
		}
		pairs[pair] = true
	}
	if n := len(inventory.Devices); len(pairs) != n*(n-1)/2 {
		t.Errorf("have %d links of %d devices, want one a pair", len(pairs), n)
	}
}

func checkSamples(t *testing.T, n drivers.NVML, inventory gpu.Inventory) {
	samples, err := n.Samples(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(samples) != len(inventory.Devices) {
		t.Fatalf("have %d samples of %d devices", len(samples), len(inventory.Devices))
	}
	for i, s := range samples {
		d := inventory.Devices[i]
		if s.UUID != d.UUID {
			t.Errorf("sample %d is of %s, want %s", i, s.UUID, d.UUID)
		}
		if used := s.MemoryUsedBytes; used != nil && *used > d.MemoryBytes {
			t.Errorf("sample %d: %d bytes in use of %d", i, *used, d.MemoryBytes)
		}
		if s.Processes == nil || s.MemoryUsedBytes == nil {
			t.Errorf("sample %d does not say whether the GPU is in use: %+v", i, s)
		}
	}
}

// LedgerContract is what every ledger must keep. The ledger comes empty.
func LedgerContract(t *testing.T, l drivers.Ledger) {
	t.Helper()
	at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	entry := func(id gpu.UUID, s drivers.State) drivers.Entry {
		return drivers.Entry{GPU: id, State: s, Owner: "abcdefgh", Tenant: "acme", Name: "train-1", BootID: "boot", Since: at}
	}
	write := func(changes ...drivers.Change) error { return l.Transition(t.Context(), changes) }

	must(t, write(drivers.Change{From: drivers.Free, To: entry("GPU-1", drivers.Reserved)}))
	refuse(t, "a stale from", write(drivers.Change{From: drivers.Free, To: entry("GPU-1", drivers.Reserved)}))
	if write(drivers.Change{From: drivers.Reserved, To: entry("GPU-1", drivers.Free)}) == nil {
		t.Error("a state was skipped")
	}
	refuse(t, "half of a change", write(
		drivers.Change{From: drivers.Free, To: entry("GPU-2", drivers.Reserved)},
		drivers.Change{From: drivers.Free, To: entry("GPU-1", drivers.Reserved)}))
	must(t, write(
		drivers.Change{From: drivers.Reserved, To: entry("GPU-1", drivers.Assigned)},
		drivers.Change{From: drivers.Free, To: entry("GPU-3", drivers.Quarantined)}))

	want := map[gpu.UUID]drivers.Entry{
		"GPU-1": entry("GPU-1", drivers.Assigned), "GPU-3": entry("GPU-3", drivers.Quarantined),
	}
	have, err := l.Entries(context.Background())
	if diff := cmp.Diff(want, have); err != nil || diff != "" {
		t.Errorf("error %v (-want +have):\n%s", err, diff)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func refuse(t *testing.T, what string, err error) {
	t.Helper()
	if !fault.Is(err, fault.Conflict) {
		t.Errorf("%s: have %v, want a conflict", what, err)
	}
}
