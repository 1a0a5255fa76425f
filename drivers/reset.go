package drivers

import (
	"context"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// reset takes out of a GPU what the driver's own scrubbing may have left, after
// nobody has it open any more. Where it cannot be reset, the operator's setting
// says whether it may be proved clean without, or goes into quarantine.
func (r *Room) reset(ctx context.Context, e Entry, d gpu.Device) error {
	if e.State == Verifying && e.BootID == r.deps.BootID {
		return nil
	}
	if e.State != Scrubbing || e.BootID != r.deps.BootID {
		// Proved unheld is what a reset needs: a plan that came late must not reset
		// the GPU of whoever was given it meanwhile.
		return fault.New(fault.Temporary, "reset", "it is %s by now", describe(e))
	}
	err := r.deps.Resetter.Reset(ctx, d)
	switch {
	case err == nil:
		e.Reset = true
		return r.move(ctx, e, Verifying, "reset; comparing it with what it was")
	case !fault.Is(err, fault.Unsupported):
		return r.again(ctx, e, wrong, "it cannot be reset: "+err.Error())
	}
	allow, settingErr := r.deps.AllowUnreset(ctx)
	if settingErr != nil {
		return settingErr
	}
	if allow {
		return r.move(ctx, e, Verifying, "not reset, which Host.spec.handover.withoutReset allows; comparing it with what it was")
	}
	reason := "a tenant had it and it cannot be reset: " + err.Error()
	if err := r.quarantine(ctx, e, reason); err != nil {
		return err
	}
	return fault.New(fault.Temporary, "reset", "%s", reason).
		WithHint("with handover: {withoutReset: allow} in the Host, GPUs change hands without")
}

// noReset is a machine whose GPUs cannot be reset.
type noReset struct{}

func (noReset) Reset(context.Context, gpu.Device) error {
	return fault.New(fault.Unsupported, "reset a GPU", "resetting real GPUs is not built yet")
}
