package ruleset

import (
	"fmt"
	"maps"
	"slices"
)

// State is a table as it stands in the kernel, or as it was left there.
type State struct {
	Counters []string
	Sets     []*Set
	Chains   []*ChainState
	of       *Table // what it was loaded from; nil where it was read
}

// ChainState is what can be read back of a chain.
type ChainState struct {
	Name  string
	Base  *Base
	Rules []RuleMark
	from  *Chain // what it was made of; nil where it was read
}

// RuleMark is what a rule carries in the kernel to be known again.
type RuleMark struct{ Digest, Comment string }

// State is how the table stands once it is loaded.
func (t *Table) State() *State {
	if known := t.loaded.Load(); known != nil {
		return known
	}
	state := &State{Counters: t.Counters, Sets: t.Sets, Chains: make([]*ChainState, len(t.Chains)), of: t}
	for i, c := range t.Chains {
		state.Chains[i] = c.state()
	}
	t.loaded.CompareAndSwap(nil, state)
	return t.loaded.Load()
}

// state is how the chain stands once it is loaded: made once, and the same one
// ever after, so that two versions of a table that share the chain share it too.
func (c *Chain) state() *ChainState {
	if known := c.loaded.Load(); known != nil {
		return known
	}
	state := &ChainState{Name: c.Name, Base: c.Base, from: c}
	for _, r := range c.Rules {
		state.Rules = append(state.Rules, RuleMark{r.Digest(), r.Comment})
	}
	c.loaded.CompareAndSwap(nil, state)
	return c.loaded.Load()
}

// Of says whether the state is what loading this very table left.
func (s *State) Of(t *Table) bool { return s != nil && s.of == t }

// Chain finds a chain by name; nil where there is none, or no table.
func (s *State) Chain(name string) *ChainState {
	if s == nil {
		return nil
	}
	for _, c := range s.Chains {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// Set finds a set by name; nil where there is none, or no table.
func (s *State) Set(name string) *Set {
	if s == nil {
		return nil
	}
	for _, set := range s.Sets {
		if set.Name == name {
			return set
		}
	}
	return nil
}

// Changes is what turns one state of a table into another, in the order in
// which the kernel accepts it within one transaction.
type Changes struct {
	Table         *Table // family and name
	NewTable      bool
	Replace       string // why the table goes first: what cannot be changed in place
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
	return !c.NewTable && c.Replace == "" && len(c.AddCounters)+len(c.AddSets)+len(c.AddChains)+len(c.SetPolicy)+len(c.Flush)+len(c.DropElements)+
		len(c.AddElements)+len(c.Fill)+len(c.DeleteSets)+len(c.DeleteChains)+len(c.DeleteCounter) == 0
}

// Summary says what would change, one line a thing, for a plan's why.
func (c *Changes) Summary() []string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	if c.Replace != "" {
		add("table %s %s is made anew: %s", c.Table.Family, c.Table.Name, c.Replace)
		return lines
	}
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

// Diff finds the changes from have to want. A nil have is an absent table. What
// both versions share costs a comparison of pointers, whatever it holds.
//
// A set whose type or a base chain whose hook differs cannot be changed in place:
// the whole table is replaced then, in the same transaction. Hooks are not swapped
// atomically, so some packets are dropped meanwhile. Only an older version of ours, or
// somebody else, leaves such a table.
func Diff(have *State, want *Table) *Changes {
	if have == nil {
		c := &Changes{Table: want, NewTable: true}
		c.fill(&State{})
		return c
	}
	c := &Changes{Table: want}
	c.fill(have)
	if c.Replace == "" {
		return c
	}
	anew := &Changes{Table: want, Replace: c.Replace}
	anew.fill(&State{})
	return anew
}

func (c *Changes) fill(have *State) {
	c.diffCounters(apart(have.Counters, c.Table.Counters))
	c.diffSets(apart(have.Sets, c.Table.Sets))
	c.diffChains(apart(have.Chains, c.Table.State().Chains))
}

// apart leaves out of two lists what they have in common at the beginning, at the
// end, and, where they are equally long, at the same places.
func apart[T comparable](have, want []T) (olds, news []T) {
	for len(have) > 0 && len(want) > 0 && have[0] == want[0] {
		have, want = have[1:], want[1:]
	}
	for len(have) > 0 && len(want) > 0 && have[len(have)-1] == want[len(want)-1] {
		have, want = have[:len(have)-1], want[:len(want)-1]
	}
	if len(have) != len(want) {
		return have, want
	}
	for i := range have {
		if have[i] != want[i] {
			olds, news = append(olds, have[i]), append(news, want[i])
		}
	}
	return olds, news
}

func (c *Changes) diffCounters(have, want []string) {
	present := make(map[string]bool, len(have))
	for _, name := range have {
		present[name] = true
	}
	for _, name := range want {
		if !present[name] {
			c.AddCounters = append(c.AddCounters, name)
		}
		delete(present, name)
	}
	c.DeleteCounter = slices.Sorted(maps.Keys(present))
}

func (c *Changes) diffSets(have, want []*Set) {
	present := make(map[string]*Set, len(have))
	for _, s := range have {
		present[s.Name] = s
	}
	for _, s := range want {
		old := present[s.Name]
		delete(present, s.Name)
		switch {
		case old == nil:
			c.AddSets = append(c.AddSets, s)
		case old != s && !old.typed(s):
			c.Replace = fmt.Sprintf("set %s is of another type", s.Name)
		case old != s:
			c.diffElements(old, s)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(present)) {
		c.DeleteSets = append(c.DeleteSets, present[name])
	}
}

// typed says whether two sets are of one type.
func (s *Set) typed(other *Set) bool {
	return s.Interval == other.Interval && slices.Equal(s.Key, other.Key) && slices.Equal(s.Data, other.Data)
}

func (c *Changes) diffElements(old, want *Set) {
	add, drop := elementsApart(old, want)
	if len(drop) > 0 {
		c.DropElements = append(c.DropElements, Delta{want, drop})
	}
	if len(add) > 0 {
		c.AddElements = append(c.AddElements, Delta{want, add})
	}
}

// elementsApart are the elements that a set lacks of what is wanted, and those it
// has beyond.
func elementsApart(have, want *Set) (lacks, extra []Element) {
	present := make(map[Element]bool, len(have.Elements))
	for _, e := range have.Elements {
		present[e] = true
	}
	for _, e := range want.Elements {
		if !present[e] {
			lacks = append(lacks, e)
		}
		delete(present, e)
	}
	for _, e := range have.Elements {
		if present[e] {
			extra = append(extra, e)
		}
	}
	return lacks, extra
}

func (c *Changes) diffChains(have, want []*ChainState) {
	present := make(map[string]*ChainState, len(have))
	for _, chain := range have {
		present[chain.Name] = chain
	}
	for _, chain := range want {
		old := present[chain.Name]
		delete(present, chain.Name)
		c.diffChain(old, chain)
	}
	c.DeleteChains = slices.Sorted(maps.Keys(present))
	c.Flush = append(c.Flush, c.DeleteChains...)
	slices.Sort(c.Flush)
}

func (c *Changes) diffChain(have, want *ChainState) {
	switch {
	case have == nil:
		c.AddChains = append(c.AddChains, want.from)
		if len(want.Rules) > 0 {
			c.Fill = append(c.Fill, want.from)
		}
		return
	case have == want:
		return
	case !have.Base.hooked(want.Base):
		c.Replace = fmt.Sprintf("chain %s is %s, want %s", want.Name, have.Base.describe(), want.Base.describe())
	case want.Base != nil && have.Base.Drop != want.Base.Drop:
		c.SetPolicy = append(c.SetPolicy, want.from)
	}
	if !slices.Equal(have.Rules, want.Rules) {
		c.Flush = append(c.Flush, want.Name)
		c.Fill = append(c.Fill, want.from)
	}
}

// hooked says whether two chains are called at the same place, or both are not.
func (b *Base) hooked(other *Base) bool {
	if b == nil || other == nil {
		return b == other
	}
	as := *b
	as.Drop = other.Drop
	return as == *other
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
	case have != want.state() && !slices.Equal(have.Rules, want.state().Rules):
		return "has other rules"
	}
	return ""
}

// SetDiffers says how a set in the kernel differs from what is wanted, or "".
func SetDiffers(want, have *Set) string {
	if have == want {
		return ""
	}
	if have == nil {
		return "is absent"
	}
	if !have.typed(want) {
		return "is of another type"
	}
	lacks, extra := elementsApart(have, want)
	switch {
	case len(extra) > 0:
		return fmt.Sprintf("has %d elements too many", len(extra))
	case len(lacks) > 0:
		return fmt.Sprintf("lacks %d elements", len(lacks))
	}
	return ""
}
