package network

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network/ruleset"
)

// Prove reads the kernel and says for each network control of one instance
// whether it is in force as the VPC wants it.
func (r *Room) Prove(ctx context.Context, vpc VPC, instance spec.UID) ([]spec.Control, error) {
	want, err := r.expect(ctx, vpc)
	if err != nil {
		return nil, err
	}
	have, err := r.deps.Kernel.Inspect(ctx, vpc.UID, instance, want.Bearing(instance))
	if err != nil {
		return nil, err
	}
	return prove(want, have, instance), nil
}

// expect compiles what should be in force, with the epochs that are.
func (r *Room) expect(ctx context.Context, vpc VPC) (*Rules, error) {
	marks, err := r.deps.Kernel.Marks(ctx, vpc.UID)
	if err != nil {
		return nil, err
	}
	l := r.lane(vpc.UID)
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.planner.Compile(vpc, marks)
}

func (r *Room) proveGuard(ctx context.Context, args EndpointArgs) error {
	if args.Whole == nil {
		return fault.New(fault.Internal, "prove guard", "the step names no network")
	}
	controls, err := r.Prove(ctx, *args.Whole, args.Endpoint.Instance)
	if err != nil {
		return err
	}
	for _, c := range controls {
		if !c.Pass {
			return fault.New(fault.Temporary, "prove guard", "%s %s: expected %s, found %s", c.ID, c.Name, c.Expected, c.Found)
		}
	}
	return nil
}

// prove compares the rules wanted with what was read back, for one instance.
func prove(want *Rules, have Have, instance spec.UID) []spec.Control {
	own, shared := want.own(instance), want.shared()
	return []spec.Control{
		chainControl("N1", "anti-spoof guard on the instance's link", want.Guard, have.Guard, GuardName(instance)),
		linkControl(have.Links[instance]),
		chainControl("N3", "forwarding denied unless a rule allows", want.Router, have.Router, forwardChain),
		bearingControl("N4", "the instance's own chains, its groups' policies and what they look up", want.Router, have.Router, own),
		entryControl(have.Router, instance),
		generationControl(want.Marks.Generation, MarksOf(have.Router).Generation),
		bearingControl("N7", "chains and sets that all instances of the network share", want.Router, have.Router, shared),
	}
}

func chainControl(id, name string, want *ruleset.Table, have *ruleset.State, chains ...string) spec.Control {
	c := spec.Control{ID: id, Name: name, Expected: "as compiled", Found: "as compiled", Pass: true}
	fail := func(format string, args ...any) {
		if c.Pass {
			c.Found, c.Pass = fmt.Sprintf(format, args...), false
		}
	}
	for _, chain := range chains {
		i := slices.IndexFunc(want.Chains, func(w *ruleset.Chain) bool { return w.Name == chain })
		if i < 0 {
			fail("chain %s is not wanted", chain)
			continue
		}
		if base := want.Chains[i].Base; base != nil {
			c.Expected = base.Text()
			if c.Pass {
				c.Found = c.Expected
			}
		}
		if what := ruleset.Differs(want.Chains[i], have.Chain(chain)); what != "" {
			fail("chain %s %s", chain, what)
		}
	}
	return c
}

func bearingControl(id, name string, want *ruleset.Table, have *ruleset.State, what Bearing) spec.Control {
	c := chainControl(id, name, want, have, what.Chains...)
	c.Expected = "as compiled"
	if len(what.Chains) == 0 {
		c.Found, c.Pass = "the instance is not in the network's rules", false
	}
	for _, set := range what.Sets {
		if differs := ruleset.SetDiffers(set, have.Set(set.Name)); c.Pass && differs != "" {
			c.Found, c.Pass = "set "+set.Name+" "+differs, false
		}
	}
	if c.Pass {
		c.Found = c.Expected
	}
	return c
}

func linkControl(link LinkState) spec.Control {
	c := spec.Control{ID: "N2", Name: "the instance's link ends in its own namespace", Expected: "up, current", Found: "up, current"}
	switch {
	case !link.Current:
		c.Found = "missing or leading elsewhere"
	case !link.Up:
		c.Found = "down"
	}
	c.Pass = c.Found == c.Expected
	return c
}

// entryControl looks at the maps that find an instance's chains by its link.
func entryControl(router *ruleset.State, instance spec.UID) spec.Control {
	key := ruleset.Ifname(LinkName(instance))
	from, to := "from_"+string(instance), "to_"+string(instance)
	found := func(name, chain string) bool {
		set := router.Set(name)
		return set != nil && slices.Contains(set.Elements, ruleset.Element{From: key, Verdict: proceed(chain)})
	}
	c := spec.Control{ID: "N5", Name: "the instance's link leads to its chains", Expected: "goto " + from + ", goto " + to}
	c.Found, c.Pass = c.Expected, true
	if !found(fromMap, from) || !found(toMap, to) {
		c.Found, c.Pass = "an entry is missing or another", false
	}
	return c
}

// ProveHost reads the host's own table and says whether it keeps tenants from the
// host, its networks and each other as is wanted. A port that is not published yet
// harms nobody; one that nobody wants published does.
func (r *Room) ProveHost(ctx context.Context, want HostWant) (spec.Control, error) {
	have, err := r.deps.Kernel.ObserveHost(ctx)
	if err != nil {
		return spec.Control{}, err
	}
	return proveHost(r.host.CompileHost(want, have), have), nil
}

func proveHost(want *ruleset.Table, have HostHave) spec.Control {
	safe := withdrawn(want, have.Table)
	what := Bearing{Sets: safe.Sets}
	for _, c := range safe.Chains {
		what.Chains = append(what.Chains, c.Name)
	}
	c := bearingControl("N8", "the host's own table keeps tenants from the host, its networks and each other", safe, have.Table, what)
	if opened := have.ours(); c.Pass && !slices.Equal(opened, have.Opened) {
		c.Found, c.Pass = "not noted as forwarding for tenants alone: "+strings.Join(opened, " "), false
	}
	return c
}

func generationControl(want, have string) spec.Control {
	if have == "" {
		have = "none"
	}
	return spec.Control{ID: "N6", Name: "rules of the wanted generation are in force", Expected: want, Found: have, Pass: want == have}
}
