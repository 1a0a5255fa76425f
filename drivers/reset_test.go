package drivers_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/drivers/drivertest"
)

// handOver plans and applies once, with the operator's setting.
func handOver(t *testing.T, h *drivertest.Host, allow bool) error {
	t.Helper()
	r := drivers.New(drivers.Deps{
		NVML: h, Ledger: h, Holders: h, Servants: h, Resetter: h, Now: noon, BootID: boot,
		AllowUnreset: func(context.Context) (bool, error) { return allow, nil },
	})
	have, err := r.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	steps, err := drivers.PlanHandover(have, nil, noon()).Ordered()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range steps.Steps {
		if err := r.Apply(t.Context(), s, nil); err != nil {
			return err
		}
	}
	return nil
}

func TestResetBetweenTenants(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer error
		allow  bool
		state  drivers.State
		reason string
	}{
		{"it is reset", nil, false, drivers.Free, "reset; proved unheld, unchanged and empty"},
		{"it cannot be, which is not allowed", fault.New(fault.Unsupported, "reset", "no way"), false, drivers.Quarantined, "cannot be reset: reset: no way"},
		{"it cannot be, which is allowed", fault.New(fault.Unsupported, "reset", "no way"), true, drivers.Free, "not reset"},
		{"it fails", errors.New("it hangs"), true, drivers.Draining, "it cannot be reset: it hangs"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, d := oneGPU(t)
			h.Fail = func(operation string) error {
				if operation == "reset" {
					return tt.answer
				}
				return nil
			}
			err := handOver(t, h, tt.allow)
			e := h.Ledger[d.UUID]
			if e.State != tt.state || !strings.Contains(e.Reason, tt.reason) || (err == nil) != (tt.state == drivers.Free) {
				t.Errorf("%s (%s), %v; want %s (%s)", e.State, e.Reason, err, tt.state, tt.reason)
			}
		})
	}
}

// A GPU that nobody had since it was last proved is proved again after a reboot,
// and needs no reset.
func TestNoResetWithoutATenant(t *testing.T) {
	h, d := oneGPU(t)
	h.Ledger[d.UUID] = drivers.Entry{GPU: d.UUID, State: drivers.Free, BootID: "boot-1", Since: noon()}
	h.Fail = noResets(t)
	if err := handOver(t, h, false); err != nil || h.Ledger[d.UUID].State != drivers.Free {
		t.Errorf("%+v, %v", h.Ledger[d.UUID], err)
	}
}

// A reset that comes late must not reset the GPU of whoever has it by now.
func TestLateResetDoesNothing(t *testing.T) {
	h, d := oneGPU(t)
	steps := drivers.PlanHandover(drivers.Have{Inventory: h.GPUs, Entries: h.Ledger, BootID: boot}, nil, noon()).Steps
	h.Fail = noResets(t)
	for _, s := range steps {
		if s.Verb != drivers.VerbReset {
			continue
		}
		for _, state := range []drivers.State{drivers.Free, drivers.Reserved, drivers.Assigned, drivers.Draining, drivers.Quarantined} {
			e := h.Ledger[d.UUID]
			e.State, e.Owner = state, "uid-b"
			h.Ledger[d.UUID] = e
			r := drivers.New(drivers.Deps{NVML: h, Ledger: h, Holders: h, Resetter: h, Now: noon, BootID: boot})
			if err := r.Apply(t.Context(), s, nil); !fault.Is(err, fault.Temporary) {
				t.Errorf("%s: %v", state, err)
			}
		}
	}
}

func noResets(t *testing.T) func(string) error {
	return func(operation string) error {
		if operation == "reset" {
			t.Error("it was reset")
		}
		return nil
	}
}
