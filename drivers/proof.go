package drivers

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// majorNVIDIA is the character device major of /dev/nvidiaN, fixed for ever.
const majorNVIDIA = 195

// absent is what is known of a GPU that is in the ledger alone.
const absent = "NVML does not answer for it: it hangs or has fallen off the bus"

// residueShare: a GPU that nobody has may still show memory in use, for the
// driver itself; above 1/64 of the whole somebody's data is there.
const residueShare = 64

func (r *Room) applyHandover(ctx context.Context, s plan.Step) error {
	args, err := plan.ArgsAs[HandoverArgs](s)
	if err != nil {
		return err
	}
	entries, err := r.deps.Ledger.Entries(ctx)
	if err != nil {
		return err
	}
	e, there := entries[args.GPU.UUID]
	if !there {
		e = Entry{GPU: args.GPU.UUID, State: Free}
	}
	switch s.Verb {
	case VerbDrain:
		return r.drain(ctx, e, args)
	case VerbScrub:
		return r.scrub(ctx, e, args.GPU)
	case VerbVerify:
		return r.verify(ctx, e, args.GPU)
	case VerbFree:
		return r.free(ctx, e, args.GPU)
	case VerbQuarantine:
		return r.quarantine(ctx, e, args.Reason)
	default:
		return r.release(ctx, e, args.Reason)
	}
}

// drain takes a GPU from its owner in the ledger. An entry that is not what the
// plan saw is left alone: somebody was given the GPU meanwhile.
func (r *Room) drain(ctx context.Context, e Entry, args HandoverArgs) error {
	if e.State == Draining && e.BootID == r.deps.BootID {
		return nil
	}
	if e.State != args.From || e.Owner != args.Owner {
		return fault.New(fault.Temporary, "drain", "it is %s by now", describe(e))
	}
	return r.move(ctx, e, Draining, args.Reason)
}

// scrub proves that nobody has the GPU.
func (r *Room) scrub(ctx context.Context, e Entry, d gpu.Device) error {
	if e.State != Scrubbing {
		if err := r.move(ctx, e, Scrubbing, "proving that no process has it open"); err != nil {
			return err
		}
		e.State = Scrubbing
	}
	if d.Index < 0 {
		return r.held(ctx, e, absent)
	}
	holders, err := r.deps.Holders.Holders(ctx, majorNVIDIA, d.Minor)
	if err != nil {
		return fault.Wrap(fault.Temporary, "look for holders", err)
	}
	if len(holders) > 0 {
		return r.held(ctx, e, holderText(holders))
	}
	sample, answers, err := r.sample(ctx, d.UUID)
	if err != nil {
		return err
	}
	if !answers {
		return r.held(ctx, e, absent)
	}
	if sample.Processes > 0 {
		return r.held(ctx, e, fmt.Sprintf("held by processes that only the driver sees: %d", sample.Processes))
	}
	return nil
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

// sample measures one GPU; false when NVML answers, and not for this one.
func (r *Room) sample(ctx context.Context, id gpu.UUID) (sample gpu.Sample, answers bool, err error) {
	samples, err := r.deps.NVML.Samples(ctx)
	if err != nil {
		return gpu.Sample{}, false, fault.Wrap(fault.Temporary, "read GPU state", err)
	}
	i := slices.IndexFunc(samples, func(s gpu.Sample) bool { return s.UUID == id })
	if i < 0 {
		return gpu.Sample{}, false, nil
	}
	return samples[i], true, nil
}

// verify proves that the GPU is the one it was, and empty.
func (r *Room) verify(ctx context.Context, e Entry, d gpu.Device) error {
	if e.State != Verifying {
		if err := r.move(ctx, e, Verifying, "comparing it with what it was"); err != nil {
			return err
		}
		e.State = Verifying
	}
	inventory, err := r.deps.NVML.Inventory(ctx)
	if err != nil {
		return fault.Wrap(fault.Temporary, "read GPU inventory", err)
	}
	now := deviceOf(inventory, d.UUID)
	if now.Index < 0 {
		return r.held(ctx, e, absent)
	}
	if wrong := difference(e.Facts, now); wrong != "" {
		return r.failed(ctx, e, wrong)
	}
	sample, answers, err := r.sample(ctx, d.UUID)
	if err != nil {
		return err
	}
	if !answers {
		return r.held(ctx, e, absent)
	}
	if used := sample.MemoryUsedBytes; used != nil && *used > now.MemoryBytes/residueShare {
		return r.failed(ctx, e, fmt.Sprintf("%d MiB of its memory are in use though nobody has it", *used>>20))
	}
	return nil
}

// difference names the first fact that changed, or "". The driver may count a
// little of the memory as its own, and another version a little more.
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
	case now.MemoryBytes < was.MemoryBytes-was.MemoryBytes/residueShare:
		return fmt.Sprintf("its memory was %d MiB and is %d MiB", was.MemoryBytes>>20, now.MemoryBytes>>20)
	default:
		return ""
	}
}

// provedClean is what a record may claim: the GPU was not reset, because NVML has
// no call for it; its memory is scrubbed by the driver when it is freed.
const provedClean = "proved unheld, unchanged and empty; not reset"

// free ends the hand-over. The owner is forgotten only now.
func (r *Room) free(ctx context.Context, e Entry, d gpu.Device) error {
	if e.State == Free && e.BootID == r.deps.BootID {
		return nil
	}
	if e.Facts == nil {
		e.Facts = &Facts{Model: d.Model, Serial: d.Serial, VBIOS: d.VBIOS, MemoryBytes: d.MemoryBytes}
	}
	e.Owner, e.Tenant, e.Name, e.Attempts = "", "", "", Attempts{}
	return r.move(ctx, e, Free, provedClean)
}

func (r *Room) quarantine(ctx context.Context, e Entry, reason string) error {
	if e.State == Quarantined {
		return nil
	}
	r.deps.Log.Warn("GPU quarantined", "gpu", e.GPU, "reason", reason)
	return r.move(ctx, e, Quarantined, reason)
}

// release forgets what the GPU was: the operator vouches for what it is now, be
// it another VBIOS or another board.
func (r *Room) release(ctx context.Context, e Entry, reason string) error {
	if e.State == Draining {
		return nil
	}
	e.Attempts, e.Facts = Attempts{}, nil
	return r.move(ctx, e, Draining, reason)
}

// held records that somebody still has the GPU, or that it cannot be asked; the
// next plan tries again.
func (r *Room) held(ctx context.Context, e Entry, by string) error {
	e.Attempts.Held++
	return r.again(ctx, e, by)
}

// failed records that the GPU is not what it should be.
func (r *Room) failed(ctx context.Context, e Entry, why string) error {
	e.Attempts.Failed++
	return r.again(ctx, e, why)
}

func (r *Room) again(ctx context.Context, e Entry, why string) error {
	if e.Attempts.Since.IsZero() {
		e.Attempts.Since = r.deps.Now().UTC()
	}
	if err := r.move(ctx, e, Draining, why); err != nil {
		return err
	}
	return fault.New(fault.Temporary, "prove it clean", "%s", why)
}

// move is one transition. That somebody else was first is no lasting conflict:
// the next plan sees what they did.
func (r *Room) move(ctx context.Context, e Entry, to State, reason string) error {
	if !Allowed(e.State, to) {
		return fault.New(fault.Conflict, "move to "+string(to), "it is %s", describe(e))
	}
	from := e.State
	if e.BootID != r.deps.BootID {
		e.Attempts = Attempts{} // a reboot may have mended it
	}
	e.State, e.Reason, e.Since, e.BootID = to, reason, r.deps.Now().UTC(), r.deps.BootID
	err := r.deps.Ledger.Transition(ctx, []Change{{From: from, To: e}})
	if fault.Is(err, fault.Conflict) {
		return &fault.Error{Kind: fault.Temporary, What: "write GPU ledger", Err: err}
	}
	return err
}
