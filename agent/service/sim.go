package service

import (
	"context"
	"slices"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/fault"
)

// Simulator breaks the GPUs of a pretend host.
type Simulator interface {
	Break(ctx context.Context, request api.SimRequest) error
	Mend(ctx context.Context) error
}

// What a simulated GPU can be made to show.
const (
	highestXID     = 999
	highestCelsius = 150
)

// Break implements api.Host.
func (s Host) Break(ctx context.Context, r api.SimRequest) error {
	what := "simulate " + string(r.Fault)
	switch {
	case s.Simulator == nil:
		return noSimulator(what)
	case !slices.Contains(api.SimFaults(), r.Fault):
		return fault.New(fault.Invalid, what, "there is no such fault").WithHint("known: %v", api.SimFaults())
	case r.Fault == api.SimXID && (r.Value == 0 || r.Value > highestXID):
		return fault.New(fault.Invalid, what, "%d is no XID; they are 1 to %d", r.Value, highestXID)
	case r.Fault == api.SimTemperature && r.Value > highestCelsius:
		return fault.New(fault.Invalid, what, "%d °C is above %d", r.Value, highestCelsius)
	}
	return s.Simulator.Break(ctx, r)
}

// Mend implements api.Host.
func (s Host) Mend(ctx context.Context) error {
	if s.Simulator == nil {
		return noSimulator("mend simulated GPUs")
	}
	return s.Simulator.Mend(ctx)
}

func noSimulator(what string) error {
	return fault.New(fault.Unsupported, what, "the GPUs of this host are real").WithHint("gpuhost agent --sim dgx-h100, on another host or root")
}
