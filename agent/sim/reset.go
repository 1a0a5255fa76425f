package sim

import (
	"context"
	"fmt"

	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// Resetter resets the pretend host's GPUs. There is nothing in them to take out:
// what it shows is that a GPU that hangs does not come back.
type Resetter struct {
	Faults string // file of faults
}

// Reset implements drivers.Resetter.
func (r Resetter) Reset(_ context.Context, d gpu.Device) error {
	faults, err := ReadFaults(r.Faults)
	if err != nil {
		return err
	}
	if faults.Hangs(d.Index) || faults.Gone(d.Index) {
		return fmt.Errorf("GPU %d does not answer", d.Index)
	}
	return nil
}
