package runtime

import (
	"strings"
	"testing"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/isolation"
)

// TestADiskOfAnotherRangeIsRefused: a disk that was kept is taken only for the ids
// that its files have.
func TestADiskOfAnotherRangeIsRefused(t *testing.T) {
	h := newHost(t)
	lease := testLease(h.importBusybox("acme"), "sleep", "1000")
	if err := h.makeContainer(lease); err != nil {
		t.Fatal(err)
	}
	if err := h.client.Delete(t.Context(), "acme", testUID, isolation.KeepDisk); err != nil {
		t.Fatal(err)
	}
	moved := lease
	moved.IDs.Start += moved.IDs.Size
	err := h.makeContainer(moved)
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), `mapped "0:1879048192:65536", the tenant's range is "0:1879113728:65536"`) {
		t.Errorf("another range: %v", err)
	}
	if err := h.makeContainer(lease); err != nil {
		t.Errorf("its own range: %v", err)
	}
	if err := h.client.Delete(t.Context(), "acme", testUID, isolation.DeleteDisk); err != nil {
		t.Error(err)
	}
}
