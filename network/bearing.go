package network

import (
	"slices"
	"strings"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network/ruleset"
)

// Bearing is what of a VPC's rules bears on one instance: the chains that its
// packets pass, and the sets and maps that these look up.
type Bearing struct {
	Chains []string
	Sets   []*ruleset.Set
}

// Bearing is all that bears on an instance: what is its own, and what all
// instances of the VPC share.
func (r *Rules) Bearing(instance spec.UID) Bearing {
	own, shared := r.own(instance), r.shared()
	return Bearing{
		Chains: append(own.Chains, append(shared.Chains, forwardChain)...),
		Sets:   append(own.Sets, shared.Sets...),
	}
}

// own is what an instance shares at most with those of the same groups.
func (r *Rules) own(instance spec.UID) Bearing {
	b := Bearing{Chains: instanceChains(r.Router, instance)}
	var asked []string
	for _, c := range r.Router.Chains {
		if slices.Contains(b.Chains, c.Name) {
			asked = append(asked, c.Asks()...)
		}
	}
	shared := r.shared().Sets
	for _, s := range r.Router.Sets {
		if slices.Contains(asked, s.Name) && !slices.Contains(shared, s) {
			b.Sets = append(b.Sets, s)
		}
	}
	return b
}

// shared is what decides about all instances alike, the forward chain aside.
func (r *Rules) shared() Bearing {
	b := Bearing{Chains: []string{generationChain}, Sets: slices.Concat(r.roster.sets, r.around.sets)}
	for _, c := range r.around.chains {
		if c.Name != forwardChain {
			b.Chains = append(b.Chains, c.Name)
		}
	}
	return b
}

// instanceChains are the chains an instance's packets pass: its own, and those of
// policies that they jump to.
func instanceChains(table *ruleset.Table, instance spec.UID) []string {
	var names []string
	for _, c := range table.Chains {
		if !strings.HasSuffix(strings.TrimSuffix(c.Name, "_r"), "_"+string(instance)) {
			continue
		}
		names = append(names, c.Name)
		for _, policy := range jumps(c) {
			if !slices.Contains(names, policy) {
				names = append(names, policy, policy+"_rules", policy+lanSuffix, policy+"_net")
			}
		}
	}
	return names
}

func jumps(c *ruleset.Chain) []string {
	var targets []string
	for _, r := range c.Rules {
		for _, e := range r.Exprs {
			if v, ok := e.(ruleset.Verdict); ok && v.Kind == ruleset.Jump {
				targets = append(targets, v.Chain)
			}
		}
	}
	return targets
}
