package drivers

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// majorNVIDIA is the character device major of /dev/nvidiaN, fixed for ever.
const majorNVIDIA = 195

// residueBytes is what a GPU that nobody has may show as in use: the driver counts
// what it keeps for itself apart, and on an idle GPU some MiB may remain.
const residueBytes = 32 << 20

// sizeShare is how much smaller than before a GPU's memory may be: the driver keeps
// a part for itself, and another version a little more.
const sizeShare = 64

// absent is what is known of a GPU that is in the ledger alone.
const absent = "NVML does not answer for it: it hangs or has fallen off the bus"

// Evidence is what could be learned of one GPU at one moment. A nil field could not
// be learned, which is never taken for the best.
type Evidence struct {
	Device          *gpu.Device // what the driver says it is
	Holders         *[]Holder   // who has its node open, without the host's own servants
	Processes       *int        // that the driver sees on it
	MemoryUsedBytes *uint64
}

// verdict is what evidence proves.
type verdict string

const (
	clean verdict = "clean"
	held  verdict = "held"  // somebody has it, or nobody can say that nobody has
	wrong verdict = "wrong" // it is not the GPU it was, or not empty
)

// judge holds evidence against what the GPU was, nil before it was first proved,
// and says why it is not clean.
func judge(e Evidence, was *Facts) (verdict, string) {
	if why := e.heldBy(); why != "" {
		return held, why
	}
	if why := difference(was, *e.Device); why != "" {
		return wrong, why
	}
	if used := *e.MemoryUsedBytes; used > residueBytes {
		return wrong, fmt.Sprintf("%d MiB of its memory are in use though nobody has it", used>>20)
	}
	return clean, ""
}

// heldBy says who has the GPU, or what cannot be known, or "".
func (e Evidence) heldBy() string {
	switch {
	case e.Device == nil:
		return absent
	case e.Holders == nil:
		return "nobody can say which processes have it open"
	case len(*e.Holders) > 0:
		return holderText(*e.Holders)
	case e.Processes == nil:
		return "NVML cannot say whether a process uses it"
	case *e.Processes > 0:
		return fmt.Sprintf("held by processes that only the driver sees: %d", *e.Processes)
	case e.MemoryUsedBytes == nil:
		return "NVML cannot say how much of its memory is in use"
	default:
		return ""
	}
}

func holderText(holders []Holder) string {
	const shown = 3
	var parts []string
	for _, h := range holders[:min(len(holders), shown)] {
		parts = append(parts, fmt.Sprintf("pid %d (%s, uid %d)", h.PID, h.Command, h.UID))
	}
	text := "held by " + strings.Join(parts, ", ")
	if more := len(holders) - shown; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// difference names the first fact that changed, or "".
func difference(was *Facts, now gpu.Device) string {
	switch {
	case was == nil:
		return ""
	case was.Model != now.Model:
		return fmt.Sprintf("its model was %q and is %q", was.Model, now.Model)
	case was.Serial != now.Serial:
		return fmt.Sprintf("its serial number was %q and is %q", was.Serial, now.Serial)
	case was.VBIOS != now.VBIOS:
		return fmt.Sprintf("its VBIOS was %q and is %q", was.VBIOS, now.VBIOS)
	case now.MemoryBytes < was.MemoryBytes-was.MemoryBytes/sizeShare:
		return fmt.Sprintf("its memory was %d MiB and is %d MiB", was.MemoryBytes>>20, now.MemoryBytes>>20)
	default:
		return ""
	}
}

// gather looks at one GPU. That a source fails as a whole is an error and says
// nothing about this GPU; that it answers without it is unknown.
func (r *Room) gather(ctx context.Context, id gpu.UUID) (Evidence, error) {
	inventory, err := r.deps.NVML.Inventory(ctx)
	if err != nil {
		return Evidence{}, fault.Wrap(fault.Temporary, "read GPU inventory", err)
	}
	device := deviceOf(inventory, id)
	if device.Index < 0 {
		return Evidence{}, nil
	}
	holders, err := r.holders(ctx, device.Minor)
	if err != nil {
		return Evidence{}, fault.Wrap(fault.Temporary, "look for holders", err)
	}
	samples, err := r.deps.NVML.Samples(ctx)
	if err != nil {
		return Evidence{}, fault.Wrap(fault.Temporary, "read GPU state", err)
	}
	i := slices.IndexFunc(samples, func(s gpu.Sample) bool { return s.UUID == id })
	if i < 0 {
		return Evidence{}, nil // it hung meanwhile
	}
	return Evidence{
		Device: &device, Holders: &holders,
		Processes: samples[i].Processes, MemoryUsedBytes: samples[i].MemoryUsedBytes,
	}, nil
}

// holders are those who have the GPU's node, less the host's own servants. These are
// asked for last: a process that is one now was one during the look.
func (r *Room) holders(ctx context.Context, minor uint32) ([]Holder, error) {
	all, err := r.deps.Holders.Holders(ctx, majorNVIDIA, minor)
	if err != nil {
		return nil, err
	}
	var others []Holder
	for _, h := range all {
		own, err := r.deps.Servants.Servant(ctx, h)
		if err != nil {
			return nil, err
		}
		if !own {
			others = append(others, h)
		}
	}
	return others, nil
}
