package ruleset

import (
	"fmt"
	"slices"
)

// State is a table as it stands in the kernel, or as it was left there.
type State struct {
	Counters map[string]bool
	Sets     map[string]*Set
	Chains   map[string]*ChainState
}

// ChainState is what can be read back of a chain.
type ChainState struct {
	Base  *Base
	Rules []RuleMark
	// from is the chain these marks were made of; the same chain again needs no comparison.
	from *Chain
}

// RuleMark is what a rule carries in the kernel to be known again.
type RuleMark struct{ Digest, Comment string }

// State is how the table stands once it is loaded. Of old, the state before, it
// takes over what is unchanged instead of computing it again; nil is allowed.
func (t *Table) State(old *State) *State {
	s := &State{Counters: map[string]bool{}, Sets: map[string]*Set{}, Chains: map[string]*ChainState{}}
	for _, c := range t.Counters {
		s.Counters[c] = true
	}
	for _, set := range t.Sets {
		s.Sets[set.Name] = set
	}
	for _, c := range t.Chains {
		if old != nil && old.Chains[c.Name] != nil && old.Chains[c.Name].from == c {
			s.Chains[c.Name] = old.Chains[c.Name]
			continue
		}
		s.Chains[c.Name] = c.state()
	}
	return s
}

func (c *Chain) state() *ChainState {
	state := &ChainState{Base: c.Base, from: c}
	for _, r := range c.Rules {
		state.Rules = append(state.Rules, RuleMark{r.Digest(), r.Comment})
	}
	return state
}

// Changes is what turns one state of a table into another, in the order in
// which the kernel accepts it within one transaction.
type Changes struct {
	Table         *Table // family and name
	NewTable      bool
	AddCounters   []string
	AddSets       []*Set   // with their elements
	AddChains     []*Chain // empty; Fill has the rules
	SetPolicy     []*Chain // base chains whose policy somebody changed
	Flush         []string // chains that change or go
	DropElements  []Delta
	AddElements   []Delta
	Fill          []*Chain
	DeleteSets    []*Set
	DeleteChains  []string
	DeleteCounter []string
}

// Delta is some elements of a set that stays.
type Delta struct {
	Set      *Set
	Elements []Element
}

// Empty says whether there is nothing to do.
func (c *Changes) Empty() bool {
	return !c.NewTable && len(c.AddCounters)+len(c.AddSets)+len(c.AddChains)+len(c.SetPolicy)+len(c.Flush)+len(c.DropElements)+
		len(c.AddElements)+len(c.Fill)+len(c.DeleteSets)+len(c.DeleteChains)+len(c.DeleteCounter) == 0
}

// Summary says what would change, one line a thing, for a plan's why.
func (c *Changes) Summary() []string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	if c.NewTable {
		add("table %s %s is absent", c.Table.Family, c.Table.Name)
		return lines
	}
	for _, s := range c.AddSets {
		add("set %s is absent", s.Name)
	}
	for _, d := range c.DropElements {
		add("set %s has %d elements too many", d.Set.Name, len(d.Elements))
	}
	for _, d := range c.AddElements {
		add("set %s lacks %d elements", d.Set.Name, len(d.Elements))
	}
	for _, p := range c.SetPolicy {
		add("policy of chain %s differs", p.Name)
	}
	for _, f := range c.Fill {
		add("chain %s differs", f.Name)
	}
	for _, name := range c.DeleteChains {
		add("chain %s is no longer wanted", name)
	}
	return lines
}

// Diff finds the changes from have to want. A nil have is an absent table.
//
// A base chain whose hook, priority or device differs from what is wanted cannot
// be changed in place; it is reported as an error, because replacing it would
// open a window.
func Diff(have *State, want *Table) (*Changes, error) {
	c := &Changes{Table: want}
	if have == nil {
		c.NewTable = true
		have = &State{}
	}
	for _, name := range want.Counters {
		if !have.Counters[name] {
			c.AddCounters = append(c.AddCounters, name)
		}
	}
	c.diffSets(have, want)
	if err := c.diffChains(have, want); err != nil {
		return nil, err
	}
	c.deleteCounters(have, want)
	return c, nil
}

func (c *Changes) deleteCounters(have *State, want *Table) {
	if len(have.Counters)+len(c.AddCounters) == len(want.Counters) {
		return
	}
	wanted := make(map[string]bool, len(want.Counters))
	for _, name := range want.Counters {
		wanted[name] = true
	}
	for name := range have.Counters {
		if !wanted[name] {
			c.DeleteCounter = append(c.DeleteCounter, name)
		}
	}
	slices.Sort(c.DeleteCounter)
}

func (c *Changes) diffSets(have *State, want *Table) {
	wanted := make(map[string]bool, len(want.Sets))
	for _, s := range want.Sets {
		wanted[s.Name] = true
		old := have.Sets[s.Name]
		switch {
		case old == nil:
			c.AddSets = append(c.AddSets, s)
		case old != s:
			c.diffElements(old, s)
		}
	}
	for name, s := range have.Sets {
		if !wanted[name] {
			c.DeleteSets = append(c.DeleteSets, s)
		}
	}
	slices.SortFunc(c.DeleteSets, func(a, b *Set) int { return compare(a.Name, b.Name) })
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (c *Changes) diffElements(old, want *Set) {
	present := make(map[Element]bool, len(old.Elements))
	for _, e := range old.Elements {
		present[e] = true
	}
	var add, drop []Element
	for _, e := range want.Elements {
		if !present[e] {
			add = append(add, e)
		}
		delete(present, e)
	}
	for _, e := range old.Elements {
		if present[e] {
			drop = append(drop, e)
		}
	}
	if len(drop) > 0 {
		c.DropElements = append(c.DropElements, Delta{want, drop})
	}
	if len(add) > 0 {
		c.AddElements = append(c.AddElements, Delta{want, add})
	}
}

func (c *Changes) diffChains(have *State, want *Table) error {
	wanted := make(map[string]bool, len(want.Chains))
	for _, chain := range want.Chains {
		wanted[chain.Name] = true
		old := have.Chains[chain.Name]
		if old == nil {
			c.AddChains = append(c.AddChains, chain)
			if len(chain.Rules) > 0 {
				c.Fill = append(c.Fill, chain)
			}
			continue
		}
		if old.from == chain {
			continue
		}
		if err := c.diffBase(chain, old.Base); err != nil {
			return err
		}
		if !slices.Equal(old.Rules, chain.state().Rules) {
			c.Flush = append(c.Flush, chain.Name)
			c.Fill = append(c.Fill, chain)
		}
	}
	for name := range have.Chains {
		if !wanted[name] {
			c.Flush = append(c.Flush, name)
			c.DeleteChains = append(c.DeleteChains, name)
		}
	}
	slices.Sort(c.Flush)
	slices.Sort(c.DeleteChains)
	return nil
}

func (c *Changes) diffBase(want *Chain, have *Base) error {
	if want.Base == nil && have == nil {
		return nil
	}
	if want.Base == nil || have == nil {
		return fmt.Errorf("chain %s cannot change its hook in place: have %s, want %s", want.Name, have.describe(), want.Base.describe())
	}
	asWanted := *have
	asWanted.Drop = want.Base.Drop
	if asWanted != *want.Base {
		return fmt.Errorf("chain %s cannot change its hook in place: have %s, want %s", want.Name, have.describe(), want.Base.describe())
	}
	if have.Drop != want.Base.Drop {
		c.SetPolicy = append(c.SetPolicy, want)
	}
	return nil
}

func (b *Base) describe() string {
	if b == nil {
		return "a regular chain"
	}
	return b.Text()
}

// Differs says how a chain in the kernel differs from what is wanted, or "".
func Differs(want *Chain, have *ChainState) string {
	switch {
	case have == nil:
		return "is absent"
	case (want.Base == nil) != (have.Base == nil), want.Base != nil && *want.Base != *have.Base:
		return "is " + have.Base.describe()
	case have.from != want && !slices.Equal(have.Rules, want.state().Rules):
		return "has other rules"
	}
	return ""
}
