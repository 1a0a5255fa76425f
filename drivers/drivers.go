// Package drivers thinks about GPUs: which to give to whom (Allocate), and
// through which states each passes (the ledger). Its sub-packages touch NVML,
// PCI and the kernel module.
package drivers

import (
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
	// Reset says that the GPU was reset in the hand-over this entry is in, or was
	// made free by.
	Reset bool `json:"reset,omitempty"`
	// Attempts counts what went wrong in the hand-over this entry is in.
	Attempts Attempts `json:"attempts,omitzero"`
	// Facts are what the GPU was when it was last proved clean, nil before the
	// first time. Verification compares with them.
	Facts *Facts `json:"facts,omitempty"`
}

// Attempts are the failed proofs of one hand-over, by what failed.
type Attempts struct {
	Held   int       `json:"held,omitempty"`   // somebody still had the GPU open, or it did not answer
	Failed int       `json:"failed,omitempty"` // the GPU was not what it should be
	Since  time.Time `json:"since,omitzero"`   // the first of them
}

func (a Attempts) total() int { return a.Held + a.Failed }

// Facts are what must be the same in a GPU before and after a tenant.
type Facts struct {
	Model       string `json:"model"`
	Serial      string `json:"serial"`
	VBIOS       string `json:"vbios"`
	MemoryBytes uint64 `json:"memoryBytes"`
}

// Change is one compare-and-swap in the ledger.
type Change struct {
	From State `json:"from"`
	To   Entry `json:"to"`
}
