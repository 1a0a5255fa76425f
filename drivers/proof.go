package drivers

import (
	"context"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

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
		return r.scrub(ctx, e)
	case VerbReset:
		return r.reset(ctx, e, args.GPU)
	case VerbVerify:
		return r.verify(ctx, e)
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
	e.Reset = false
	return r.move(ctx, e, Draining, args.Reason)
}

// scrub proves that nobody has the GPU.
func (r *Room) scrub(ctx context.Context, e Entry) error {
	e, found, err := r.look(ctx, e, Scrubbing, "proving that no process has it open")
	if err != nil {
		return err
	}
	if why := found.heldBy(); why != "" {
		return r.again(ctx, e, held, why)
	}
	return nil
}

// verify proves that the GPU is the one it was, empty, and still unheld.
func (r *Room) verify(ctx context.Context, e Entry) error {
	e, found, err := r.look(ctx, e, Verifying, "comparing it with what it was")
	if err != nil {
		return err
	}
	if says, why := judge(found, e.Facts); says != clean {
		return r.again(ctx, e, says, why)
	}
	return nil
}

// look gathers evidence once the ledger says what for.
func (r *Room) look(ctx context.Context, e Entry, in State, reason string) (Entry, Evidence, error) {
	if e.State != in {
		if err := r.move(ctx, e, in, reason); err != nil {
			return e, Evidence{}, err
		}
		e.State = in
	}
	found, err := r.gather(ctx, e.GPU)
	return e, found, err
}

// What a record may claim. The memory of a GPU that was not reset is scrubbed by
// the driver when it is freed.
const (
	provedClean = "proved unheld, unchanged and empty; not reset"
	resetClean  = "reset; proved unheld, unchanged and empty"
)

// free ends the hand-over. The owner is forgotten only now.
func (r *Room) free(ctx context.Context, e Entry, d gpu.Device) error {
	if e.State == Free && e.BootID == r.deps.BootID {
		return nil
	}
	if e.Facts == nil {
		e.Facts = &Facts{Model: d.Model, Serial: d.Serial, VBIOS: d.VBIOS, MemoryBytes: d.MemoryBytes}
	}
	record := provedClean
	if e.Reset {
		record = resetClean
	}
	e.Owner, e.Tenant, e.Name, e.Attempts = "", "", "", Attempts{}
	return r.move(ctx, e, Free, record)
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

// again records a failed proof by what failed; the next plan tries again.
func (r *Room) again(ctx context.Context, e Entry, says verdict, why string) error {
	if says == held {
		e.Attempts.Held++
	} else {
		e.Attempts.Failed++
	}
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
