package ruleset_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gpuhost/gpuhost/network/ruleset"
)

// drawTable makes a table whose maps and rules refer to each other at random.
func drawTable(t *rapid.T) *ruleset.Table {
	table := &ruleset.Table{Family: ruleset.INet, Name: "t"}
	n := rapid.IntRange(0, 4).Draw(t, "chains")
	target := func(label string) string { return fmt.Sprintf("c%d", rapid.IntRange(0, max(n-1, 0)).Draw(t, label)) }
	table.Counters = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"x", "y", "z"}), 0, 3, rapid.ID).Draw(t, "counters")
	if n > 0 {
		for i := range rapid.IntRange(0, 3).Draw(t, "maps") {
			key := rapid.SampledFrom([]ruleset.Type{ruleset.TypeAddr, ruleset.TypeMark}).Draw(t, "key")
			set := &ruleset.Set{Name: fmt.Sprintf("m%d", i), Key: []ruleset.Type{key}, Data: []ruleset.Type{ruleset.TypeVerdict}}
			for j := range rapid.IntRange(0, 4).Draw(t, "elements") {
				set.Elements = append(set.Elements, ruleset.Element{
					From:    ruleset.Addr(netip.AddrFrom4([4]byte{10, 0, 0, byte(j)})),
					Verdict: ruleset.Verdict{Kind: ruleset.Goto, Chain: target("element")},
				})
			}
			table.Sets = append(table.Sets, set)
		}
	}
	for i := range n {
		chain := &ruleset.Chain{Name: fmt.Sprintf("c%d", i)}
		for range rapid.IntRange(0, 3).Draw(t, "rules") {
			var exprs []ruleset.Expr
			if len(table.Counters) > 0 && rapid.Bool().Draw(t, "counts") {
				exprs = append(exprs, ruleset.Count{Counter: rapid.SampledFrom(table.Counters).Draw(t, "counter")})
			}
			if len(table.Sets) > 0 && rapid.Bool().Draw(t, "maps") {
				exprs = append(exprs, ruleset.Map{Fields: []ruleset.Field{ruleset.Source}, Map: rapid.SampledFrom(table.Sets).Draw(t, "map").Name})
			} else {
				exprs = append(exprs, ruleset.Verdict{Kind: ruleset.Jump, Chain: target("jump")})
			}
			chain.Rules = append(chain.Rules, ruleset.Do(exprs...))
		}
		table.Chains = append(table.Chains, chain)
	}
	return table
}

// kernel applies changes the way nftables does, and refuses what it refuses:
// a reference to what is not there, and the removal of what is referred to.
type kernel struct {
	counters map[string]bool
	sets     map[string]*ruleset.Set
	chains   map[string][]ruleset.Rule
}

func newKernel() kernel {
	return kernel{counters: map[string]bool{}, sets: map[string]*ruleset.Set{}, chains: map[string][]ruleset.Rule{}}
}

func (k *kernel) apply(t *rapid.T, c *ruleset.Changes) {
	if c.Replace != "" {
		*k = newKernel()
	}
	for _, name := range c.AddCounters {
		k.counters[name] = true
	}
	for _, s := range c.AddSets {
		k.sets[s.Name] = &ruleset.Set{Name: s.Name, Key: s.Key, Data: s.Data}
	}
	for _, chain := range c.AddChains {
		k.chains[chain.Name] = nil
	}
	for _, name := range c.Flush {
		k.chains[name] = nil
	}
	for _, d := range c.DropElements {
		s := k.sets[d.Set.Name]
		s.Elements = slices.DeleteFunc(slices.Clone(s.Elements), func(e ruleset.Element) bool { return slices.Contains(d.Elements, e) })
	}
	for _, d := range append(c.AddElements, deltas(c.AddSets)...) {
		s := k.sets[d.Set.Name]
		s.Elements = append(slices.Clone(s.Elements), d.Elements...)
	}
	for _, chain := range c.Fill {
		k.chains[chain.Name] = chain.Rules
	}
	for _, s := range c.DeleteSets {
		delete(k.sets, s.Name)
	}
	for _, name := range c.DeleteChains {
		delete(k.chains, name)
	}
	for _, name := range c.DeleteCounter {
		delete(k.counters, name)
	}
	k.check(t)
}

func deltas(sets []*ruleset.Set) []ruleset.Delta {
	var out []ruleset.Delta
	for _, s := range sets {
		out = append(out, ruleset.Delta{Set: s, Elements: s.Elements})
	}
	return out
}

// check finds references to what is not there, and keys that are there twice.
func (k *kernel) check(t *rapid.T) {
	for _, s := range k.sets {
		seen := map[ruleset.Value]bool{}
		for _, e := range s.Elements {
			if _, there := k.chains[e.Verdict.Chain]; !there {
				t.Fatalf("map %s refers to chain %s, which is gone", s.Name, e.Verdict.Chain)
			}
			if seen[e.From] {
				t.Fatalf("map %s has a key twice", s.Name)
			}
			seen[e.From] = true
		}
	}
	for name, rules := range k.chains {
		for _, r := range rules {
			for _, e := range r.Exprs {
				k.checkExpr(t, name, e)
			}
		}
	}
}

func (k *kernel) checkExpr(t *rapid.T, chain string, e ruleset.Expr) {
	there := true
	switch e := e.(type) {
	case ruleset.Count:
		there = k.counters[e.Counter]
	case ruleset.Map:
		_, there = k.sets[e.Map]
	case ruleset.Verdict:
		_, there = k.chains[e.Chain]
	}
	if !there {
		t.Fatalf("chain %s refers to what is gone: %s", chain, e)
	}
}

func TestDiffLeadsFromAnyTableToAnyOther(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := newKernel()
		var have *ruleset.State
		var before *ruleset.Table
		for range rapid.IntRange(1, 4).Draw(t, "versions") {
			want := drawTable(t)
			if before != nil && rapid.Bool().Draw(t, "shares") {
				share(before, want)
			}
			before = want
			changes := ruleset.Diff(have, want)
			k.apply(t, changes)
			if got := k.text(want); got != want.Text() {
				t.Fatalf("after the changes (-want +got):\n%s", cmp.Diff(want.Text(), got))
			}
			have = want.State()
			if again := ruleset.Diff(have, want); !again.Empty() {
				t.Fatalf("a second diff finds %v", again.Summary())
			}
		}
	})
}

// share has a table hold the very chains and sets of another, where they are equal.
func share(from, to *ruleset.Table) {
	text := func(c *ruleset.Chain) string {
		return (&ruleset.Table{Chains: []*ruleset.Chain{c}}).Text()
	}
	for _, old := range from.Chains {
		if i := slices.IndexFunc(to.Chains, func(c *ruleset.Chain) bool { return text(c) == text(old) }); i >= 0 {
			to.Chains[i] = old
		}
	}
	for _, old := range from.Sets {
		if i := slices.IndexFunc(to.Sets, func(s *ruleset.Set) bool { return cmp.Equal(s, old) }); i >= 0 {
			to.Sets[i] = old
		}
	}
}

// text renders what the kernel holds in the order of want.
func (k *kernel) text(want *ruleset.Table) string {
	got := &ruleset.Table{Family: want.Family, Name: want.Name}
	for _, c := range want.Counters {
		if k.counters[c] {
			got.Counters = append(got.Counters, c)
		}
	}
	for _, s := range want.Sets {
		held := *k.sets[s.Name]
		held.Elements = slices.SortedFunc(slices.Values(held.Elements), func(a, b ruleset.Element) int {
			return slices.Index(s.Elements, a) - slices.Index(s.Elements, b)
		})
		got.Sets = append(got.Sets, &held)
	}
	for _, c := range want.Chains {
		got.Chains = append(got.Chains, &ruleset.Chain{Name: c.Name, Rules: k.chains[c.Name]})
	}
	return got.Text()
}

func TestABaseChainThatStaysIsNeverReplaced(t *testing.T) {
	table := func(b *ruleset.Base, rules ...ruleset.Rule) *ruleset.Table {
		return &ruleset.Table{Family: ruleset.INet, Name: "t", Chains: []*ruleset.Chain{{Name: "forward", Base: b, Rules: rules}}}
	}
	drop := &ruleset.Base{Type: "filter", Hook: "forward", Drop: true}
	open := &ruleset.Base{Type: "filter", Hook: "forward"}
	moved := &ruleset.Base{Type: "filter", Hook: "forward", Priority: 10, Drop: true}

	changes := ruleset.Diff(table(drop).State(), table(drop, ruleset.Do(ruleset.Verdict{Kind: ruleset.Accept})))
	if len(changes.Flush) != 1 || len(changes.Fill) != 1 || len(changes.AddChains)+len(changes.DeleteChains) != 0 || changes.Replace != "" {
		t.Errorf("new rules: %+v; want only a refill", changes)
	}
	changes = ruleset.Diff(table(open).State(), table(drop))
	if len(changes.SetPolicy) != 1 || len(changes.AddChains)+len(changes.DeleteChains) != 0 || changes.Replace != "" {
		t.Errorf("another policy: %+v; want it set in place", changes)
	}
	changes = ruleset.Diff(table(moved).State(), table(drop))
	if changes.Replace == "" || len(changes.AddChains) != 1 {
		t.Errorf("another priority: %+v; want the table made anew", changes)
	}
}

// What a map gives is part of a rule's digest.
func TestADigestNamesThePort(t *testing.T) {
	address, port := ruleset.Do(ruleset.DNAT{Map: "m"}), ruleset.Do(ruleset.DNAT{Map: "m", WithPort: true})
	if address.Digest() == port.Digest() {
		t.Errorf("both rules are %s", port.Text())
	}
}
