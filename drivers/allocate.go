package drivers

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// Request is what one instance asks for. A request that is not Want asks for
// nothing: its GPUs go back through hand-over once the instance is gone.
type Request struct {
	Instance spec.UID
	Tenant   string
	Name     string
	Count    int
	Model    string // any part of the model's name, in any case; "" for any
	MIG      string // a MIG profile, "" for whole GPUs
	Want     bool
	Names    bool // an operator asks: whoever holds a GPU is named
}

// Pick is what a request is given, ordered by PCI address, and why just these.
type Pick struct {
	GPUs []gpu.Device
	Why  string
}

// Allocate decides which GPUs a request is given. What the instance holds
// already is kept; the rest is chosen from the free ones so that, in this
// order, the weakest link between any two is strongest, the sum of all links is
// largest, the fewest NUMA nodes are touched, and what stays free is worth most
// to the next. The same input always gives the same answer.
//
// A GPU in MIG mode has no whole to give: without instances of MIG it computes
// nothing, and with them it is several. A GPU without an entry counts as free; [Have.Settled] is the stricter view
// that also asks when each entry was proved.
func Allocate(inv gpu.Inventory, entries map[gpu.UUID]Entry, r Request) (Pick, error) {
	if !r.Want || r.Count == 0 {
		return Pick{Why: "no GPU is asked for"}, nil
	}
	if err := r.check(inv); err != nil {
		return Pick{}, err
	}
	m := newMachine(inv)
	matching := m.where(func(d gpu.Device) bool { return r.matches(d) })
	free := m.where(func(d gpu.Device) bool { return stateOf(entries, d.UUID) == Free && !d.MIGEnabled })
	held := matching & m.where(func(d gpu.Device) bool { return holds(entries[d.UUID], r.Instance) })

	if held.size() >= r.Count {
		kept := m.choose(0, held, held|free, r.Count)
		return Pick{GPUs: m.devices(kept), Why: "held already: " + m.describe(kept)}, nil
	}
	candidates := matching & free
	if held.size()+candidates.size() < r.Count {
		return Pick{}, exhausted(inv, entries, r)
	}
	chosen := m.choose(held, candidates, free, r.Count)
	return Pick{GPUs: m.devices(chosen), Why: m.reason(chosen, held, free)}, nil
}

func (r Request) what() string {
	return fmt.Sprintf("allocate %s to %s/%s", gpus(r.Count), r.Tenant, r.Name)
}

func (r Request) matches(d gpu.Device) bool {
	return strings.Contains(strings.ToLower(d.Model), strings.ToLower(r.Model))
}

// check refuses what no change of the ledger could ever make possible.
func (r Request) check(inv gpu.Inventory) error {
	switch {
	case r.Count < 0:
		return fault.New(fault.Invalid, r.what(), "a count is never negative")
	case r.MIG != "":
		return r.refuseMIG()
	case !slices.ContainsFunc(inv.Devices, r.matches):
		return r.noSuchModel(inv)
	}
	return nil
}

func (r Request) refuseMIG() error {
	profile, err := gpu.ParseMIGProfile(r.MIG)
	if err != nil {
		return fault.Wrap(fault.Invalid, r.what(), err)
	}
	return fault.New(fault.Unsupported, r.what(), "slices of a GPU (%s) are not built yet", profile).
		WithHint("ask for whole GPUs with --gpus %d", max(r.Count, 1))
}

func (r Request) noSuchModel(inv gpu.Inventory) error {
	if len(inv.Devices) == 0 {
		return fault.New(fault.Exhausted, r.what(), "this host has no GPU").WithHint("gpuhost doctor")
	}
	return fault.New(fault.Invalid, r.what(), "no GPU here is a %q; this host has %s", r.Model, models(inv.Devices)).
		WithHint("gpuhost gpu list")
}

// exhausted says what is free and where the rest is. A tenant may read it:
// unless an operator asks it names the tenant's own instances, not those of others.
func exhausted(inv gpu.Inventory, entries map[gpu.UUID]Entry, r Request) error {
	var free int
	places := map[string]int{}
	waiting := false
	for _, d := range inv.Devices {
		e := entries[d.UUID]
		switch {
		case !r.matches(d):
		case holds(e, r.Instance):
			places["already its own"]++
		case stateOf(entries, d.UUID) == Free && d.MIGEnabled:
			places["in MIG mode"]++
		case stateOf(entries, d.UUID) == Free:
			free++
		default:
			waiting = waiting || inHandover(e.State)
			places[r.place(e)]++
		}
	}
	hint := "gpuhost gpu list"
	if waiting {
		hint = "GPUs in hand-over come back by themselves: " + hint
	}
	return fault.New(fault.Exhausted, r.what(), "%s", strings.Join(append([]string{r.freeText(free)}, countTexts(places)...), ", ")).WithHint("%s", hint)
}

// freeText is "2 of this host's "H100" GPUs free".
func (r Request) freeText(free int) string {
	of := "this host's GPUs"
	if r.Model != "" {
		of = fmt.Sprintf("this host's %q GPUs", r.Model)
	}
	return fmt.Sprintf("%d of %s free", free, of)
}

func (r Request) place(e Entry) string {
	switch {
	case e.State == Quarantined:
		return "quarantined"
	case inHandover(e.State):
		return "in hand-over"
	case e.Tenant != r.Tenant && !r.Names:
		return "held by other tenants"
	default:
		return "held by " + e.Tenant + "/" + e.Name
	}
}

// countTexts gives "2 held by acme/a", "1 in hand-over", in order of the words.
func countTexts(counts map[string]int) []string {
	parts := make([]string, 0, len(counts))
	for what, n := range counts {
		parts = append(parts, fmt.Sprintf("%d %s", n, what))
	}
	slices.SortFunc(parts, func(a, b string) int { return cmp.Compare(a[strings.Index(a, " "):], b[strings.Index(b, " "):]) })
	return parts
}

func models(devices []gpu.Device) string {
	counts := map[string]int{}
	for _, d := range devices {
		counts["× "+d.Model]++
	}
	return strings.Join(countTexts(counts), ", ")
}

func gpus(n int) string {
	if n == 1 {
		return "1 GPU"
	}
	return fmt.Sprintf("%d GPUs", n)
}

func stateOf(entries map[gpu.UUID]Entry, id gpu.UUID) State {
	if e, there := entries[id]; there {
		return e.State
	}
	return Free
}

// holds says whether an entry is a grant to this instance.
func holds(e Entry, instance spec.UID) bool {
	return (e.State == Reserved || e.State == Assigned) && e.Owner == instance
}

func inHandover(s State) bool { return s == Draining || s == Scrubbing || s == Verifying }
