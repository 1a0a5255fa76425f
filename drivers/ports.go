package drivers

import (
	"context"

	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// Ledger persists entries. Transition is atomic and fsynced: every change's
// From must still be the present state (a missing entry counts as Free), else
// nothing is written and a conflict fault comes back. It refuses a change the
// state machine does not allow.
type Ledger interface {
	Entries(ctx context.Context) (map[gpu.UUID]Entry, error)
	Transition(ctx context.Context, changes []Change) error
}

// NVML is what the helper process answers, each call under a deadline.
type NVML interface {
	Inventory(ctx context.Context) (gpu.Inventory, error)
	Samples(ctx context.Context) ([]gpu.Sample, error)
}

// Holders finds who has a character device open or mapped, whatever the name of
// the node it was opened by. It must see every process of the host.
type Holders interface {
	Holders(ctx context.Context, major, minor uint32) ([]Holder, error)
}

// Servants knows the processes of the host itself that have every GPU open all the
// time and give nobody access: the present NVML helper, the driver's persistence
// daemon. Whoever else has a GPU open holds it, a helper that hangs included.
type Servants interface {
	Servant(ctx context.Context, h Holder) (bool, error)
}

// Resetter resets one GPU that nobody has open, and returns when it answers again.
// Where it cannot be reset alone, or not at all, it answers with an unsupported
// fault and has done nothing.
type Resetter interface {
	Reset(ctx context.Context, d gpu.Device) error
}

// Holder is one process that has a device.
type Holder struct {
	PID     int    `json:"pid"`
	Command string `json:"command"`
	UID     uint32 `json:"uid"` // on the host
}
