package drivers

import "slices"

// The life of a GPU between tenants. Every arrow is written to the ledger,
// fsynced, before what it stands for is done.
//
//	             ┌────────────── a start that was given up ──────────────┐
//	             │                                                       ▼
//	Free ──▶ Reserved ──▶ Assigned ──────── owner gone ──────────────▶ Draining ◀─┐
//	 ▲ │                                                                 │  ▲     │ again, from the start:
//	 │ ├─ not proved in this boot ───────────────────────────────────────┼──┘     │ after a crash, a reboot
//	 │ │                                                                 ▼        │ or a failed proof
//	 │ │                                                             Scrubbing ───┤
//	 │ │                                                                 ▼        │
//	 └─┼──────────────────────── proved clean ────────────────────── Verifying ───┘
//	   │                                                                 │
//	   └─ taken out by the operator ─▶ Quarantined ◀── proof impossible ─┘ (from all three)
//	                                        └── released by the operator ──▶ Draining
//
// Nothing skips: the only way into Free is from Verifying, the only way into
// Assigned is from Reserved, and a quarantined GPU never comes back by itself.

// Allowed says whether the ledger may take a GPU from one state to another. A
// state to itself is not a transition. Every implementation of [Ledger] asks
// this and refuses the rest.
func Allowed(from, to State) bool { return slices.Contains(next(from), to) }

func next(from State) []State {
	switch from {
	case Free:
		return []State{Reserved, Draining, Quarantined}
	case Reserved:
		return []State{Assigned, Draining}
	case Assigned:
		return []State{Draining}
	case Draining:
		return []State{Scrubbing, Quarantined}
	case Scrubbing:
		return []State{Verifying, Draining, Quarantined}
	case Verifying:
		return []State{Free, Draining, Quarantined}
	case Quarantined:
		return []State{Draining}
	default:
		return nil
	}
}

// States lists every state, in the order of a GPU's life.
func States() []State {
	return []State{Free, Reserved, Assigned, Draining, Scrubbing, Verifying, Quarantined}
}
