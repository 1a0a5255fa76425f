// Package drivers thinks about GPUs: which to give to whom (Allocate), and
// through which states each passes (the ledger). Its sub-packages touch NVML,
// PCI and the kernel module.
package drivers

import (
	"context"
	"time"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// State is where a GPU stands between tenants. See the diagram in ledger.go.
type State string

// The states of the ledger.
const (
	Free        State = "Free"
	Reserved    State = "Reserved"
	Assigned    State = "Assigned"
	Draining    State = "Draining"
	Scrubbing   State = "Scrubbing"
	Verifying   State = "Verifying"
	Quarantined State = "Quarantined"
)

// Entry is one GPU's line in the ledger. Owner is the instance's uid, empty
// when Free.
type Entry struct {
	GPU    gpu.UUID  `json:"gpu"`
	State  State     `json:"state"`
	Owner  spec.UID  `json:"owner,omitempty"`
	Tenant string    `json:"tenant,omitempty"`
	Name   string    `json:"name,omitempty"`   // the owner's name when it was given
	Reason string    `json:"reason,omitempty"` // why it is in this state
	BootID string    `json:"bootId"`           // the boot in which the entry was written
	Since  time.Time `json:"since"`
}

// Ledger persists entries. Transition is atomic and fsynced: every change's
// From must still be the present state (a missing entry counts as Free), else
// nothing is written and a conflict fault comes back. It refuses a change the
// state machine does not allow.
type Ledger interface {
	Entries(ctx context.Context) (map[gpu.UUID]Entry, error)
	Transition(ctx context.Context, changes []Change) error
}

// Change is one compare-and-swap in the ledger.
type Change struct {
	From State `json:"from"`
	To   Entry `json:"to"`
}

// NVML is what the helper process answers, each call under a deadline.
type NVML interface {
	Inventory(ctx context.Context) (gpu.Inventory, error)
	Samples(ctx context.Context) ([]gpu.Sample, error)
}
