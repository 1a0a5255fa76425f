package network

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network/policy"
	"github.com/gpuhost/gpuhost/network/ruleset"
)

// Rules is what a VPC's router namespace should hold, compiled.
type Rules struct {
	Guard  *ruleset.Table // netdev: who may send what, per link
	Router *ruleset.Table // inet: policies, translation, services
	Marks  Marks          // the epochs this version gives out
	Stale  []FlowMark     // connections to forget before it is loaded

	roster *roster
	around *surroundings
}

// Planner compiles VPCs and makes plans. It is pure: what it remembers between
// calls only saves work, because unchanged groups and endpoints keep the very
// chains and sets they had, and a diff passes over those. One planner serves one
// VPC and one goroutine at a time.
type Planner struct {
	table    string
	groups   map[string]*parsedGroup
	policies map[string]compiledPolicy // by chain
	roster   *roster
	around   *surroundings
	last     *compilation // nil before the first
}

// NewPlanner makes a planner whose tables carry the host's id.
func NewPlanner(hostID string) *Planner {
	return &Planner{
		table: TableName(hostID), groups: map[string]*parsedGroup{}, policies: map[string]compiledPolicy{},
		roster: &roster{}, around: &surroundings{},
	}
}

type parsedGroup struct {
	written  spec.SecurityGroupSpec
	programs [2]policy.Program // of ingress, egress
	digest   [2]string
	names    [2][]string // the groups that ingress and egress name
}

// compiledPolicy is one direction of one ordered list of groups.
type compiledPolicy struct {
	stamp   Stamp
	program policy.Program
	chains  []*ruleset.Chain
	sets    []*ruleset.Set
}

// Compile makes the rules of a VPC. Policies whose meaning is as in have keep
// their epoch. The error names the group or rule that is wrong. Neither the rules
// nor what was given may be changed afterwards.
func (p *Planner) Compile(vpc VPC, have Marks) (*Rules, error) {
	p.roster = p.roster.of(vpc.Endpoints)
	p.around = p.around.of(vpc)
	c := &compilation{planner: p, vpc: vpc, roster: p.roster, around: p.around}
	if err := c.parse(); err != nil {
		return nil, err
	}
	c.digest()
	if c.same(p.last) && have.equal(p.last.rules.Marks) {
		return p.last.rules, nil
	}
	c.allocation = newAllocation(have, c.wanted())
	if err := c.assemble(); err != nil {
		return nil, err
	}
	p.forget(c)
	rules := *c.rules
	c.rules.Stale = nil // once is enough: flows of the new epoch bear the same marks
	p.last = c
	return &rules, nil
}

// marksOf are the epochs of a table, which need not be read out of the one that
// was compiled last.
func (p *Planner) marksOf(router *ruleset.State) Marks {
	if p.last != nil && router.Of(p.last.rules.Router) {
		return p.last.rules.Marks
	}
	return MarksOf(router)
}

// compilation is the state of one Compile.
type compilation struct {
	planner    *Planner
	vpc        VPC
	roster     *roster
	around     *surroundings
	groups     map[string]*parsedGroup // that are bound
	referenced []string                // groups that rules in use name, sorted
	digests    [][2]string             // of the policies of each of the roster's lists
	allocation *allocation
	rules      *Rules
}

// same says whether the compilation before was made of the same.
func (c *compilation) same(before *compilation) bool {
	return before != nil && c.roster == before.roster && c.around == before.around && slices.Equal(c.digests, before.digests)
}

// parse reads the groups that are bound.
func (c *compilation) parse() error {
	c.groups = make(map[string]*parsedGroup, len(c.vpc.Groups))
	for _, list := range c.roster.lists {
		for _, name := range list.groups {
			if c.groups[name] != nil {
				continue
			}
			group, there := c.vpc.Groups[name]
			if !there {
				return fault.New(fault.Invalid, "compile network "+c.vpc.Name, "security group %q does not exist", name)
			}
			if err := c.parseGroup(name, group.Spec); err != nil {
				return err
			}
		}
	}
	slices.Sort(c.referenced)
	c.referenced = slices.Compact(c.referenced)
	return nil
}

func (c *compilation) parseGroup(name string, written spec.SecurityGroupSpec) error {
	parsed, err := c.planner.parseGroup(name, written)
	if err != nil {
		return err
	}
	c.groups[name] = parsed
	for _, names := range parsed.names {
		for _, referenced := range names {
			if _, there := c.vpc.Groups[referenced]; !there {
				return fault.New(fault.Invalid, "security group "+name, "it names group %q, which does not exist", referenced)
			}
			c.referenced = append(c.referenced, referenced)
		}
	}
	return nil
}

func (p *Planner) parseGroup(name string, written spec.SecurityGroupSpec) (*parsedGroup, error) {
	known, there := p.groups[name]
	if there && sameRules(known.written.Ingress, written.Ingress) && sameRules(known.written.Egress, written.Egress) {
		return known, nil
	}
	parsed := &parsedGroup{written: written}
	if err := parsed.parse(inbound(), written.Ingress); err != nil {
		return nil, fault.Wrap(fault.Invalid, "security group "+name+" ingress", err)
	}
	if err := parsed.parse(outbound(), written.Egress); err != nil {
		return nil, fault.Wrap(fault.Invalid, "security group "+name+" egress", err)
	}
	p.groups[name] = parsed
	return parsed, nil
}

// parse compiles one direction, once for all policies that the group is part of.
func (g *parsedGroup) parse(s side, written []spec.Rule) error {
	rules, err := policy.Parse(written)
	if err != nil {
		return err
	}
	half := s.half()
	g.digest[half], g.names[half] = digestRules(rules), policy.References(rules)
	g.programs[half], err = policy.Compile(rules)
	return err
}

// sameRules compares lists; one and the same list without a look at its rules.
func sameRules(a, b []spec.Rule) bool {
	if len(a) != len(b) {
		return false
	}
	return len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b)
}

func digestRules(rules []policy.Rule) string {
	var text strings.Builder
	for _, r := range rules {
		text.WriteString(r.String())
		text.WriteByte('\n')
	}
	return shortHash(text.String())
}

// digest names what each policy means. Where no endpoint changed and no group of
// a list, it means what it meant before.
func (c *compilation) digest() {
	c.digests = make([][2]string, len(c.roster.lists))
	before := c.planner.last
	if before != nil && before.roster != c.roster {
		before = nil
	}
	for i, list := range c.roster.lists {
		if before != nil && !slices.ContainsFunc(list.groups, func(g string) bool { return c.groups[g] != before.groups[g] }) {
			c.digests[i] = before.digests[i]
			continue
		}
		for half := range list.chains {
			c.digests[i][half] = c.meaning(list, half)
		}
	}
}

// meaning is a policy's: its rules, and who is in the groups they name.
func (c *compilation) meaning(list groupList, half int) string {
	var text strings.Builder
	for _, name := range list.groups {
		group := c.groups[name]
		fmt.Fprintf(&text, "%s %s\n", name, group.digest[half])
		for _, referenced := range group.names[half] {
			fmt.Fprintf(&text, "%s has %s\n", referenced, c.roster.group(referenced).digest)
		}
	}
	return shortHash(text.String())
}

// wanted are the digests by policy chain.
func (c *compilation) wanted() map[string]string {
	wanted := make(map[string]string, 2*len(c.digests))
	for i, list := range c.roster.lists {
		for half, chain := range list.chains {
			wanted[chain] = c.digests[i][half]
		}
	}
	return wanted
}

// assemble puts the tables together. The error names what is too much.
func (c *compilation) assemble() error {
	router := &ruleset.Table{Family: ruleset.INet, Name: c.planner.table}
	if before := c.planner.last; before != nil { // it will be about as long
		router.Sets = make([]*ruleset.Set, 0, len(before.rules.Router.Sets)+8)
		router.Chains = make([]*ruleset.Chain, 0, len(before.rules.Router.Chains)+8)
	}
	for i, list := range c.roster.lists {
		for _, s := range []side{inbound(), outbound()} {
			compiled, err := c.policy(s, list, c.digests[i][s.half()])
			if err != nil {
				return fmt.Errorf("security groups %s: %w", strings.Join(list.groups, ", "), err)
			}
			router.Sets = append(router.Sets, compiled.sets...)
			router.Chains = append(router.Chains, compiled.chains...)
		}
	}
	router.Sets = append(append(router.Sets, c.roster.sets...), c.around.sets...)
	for _, group := range c.referenced {
		router.Sets = append(router.Sets, c.roster.group(group).set)
	}
	marks := c.allocation.next
	marks.Generation = c.generation()
	router.Chains = append(append(append(router.Chains, c.roster.chains...), c.around.chains...), markChain(marks))
	router.Counters = append(slices.Clone(c.roster.counters), fixedCounters()...)
	guard := guardTable(c.planner.table)
	guard.Counters, guard.Chains = []string{spoofCounter}, c.roster.guards
	c.rules = &Rules{Guard: guard, Router: router, Marks: marks, Stale: c.allocation.stale, roster: c.roster, around: c.around}
	return nil
}

func (c *compilation) policy(s side, list groupList, digest string) (compiledPolicy, error) {
	chain := list.chains[s.half()]
	stamp := c.allocation.stamp(s, chain, digest)
	if known, there := c.planner.policies[chain]; there && known.stamp == stamp {
		return known, nil
	}
	programs := make([]policy.Program, len(list.groups))
	for i, name := range list.groups {
		programs[i] = c.groups[name].programs[s.half()]
	}
	program, err := policy.Join(programs...)
	if err != nil {
		return compiledPolicy{}, err
	}
	compiled := compilePolicy(s, chain, stamp, program, c.planner.policies[chain])
	c.planner.policies[chain] = compiled
	return compiled, nil
}

// generation names the meaning of everything loaded, whatever epochs it got.
func (c *compilation) generation() string {
	text := fmt.Appendln(nil, c.planner.table, c.around.digest, c.roster.digest)
	for i, list := range c.roster.lists {
		for half, chain := range list.chains {
			text = append(append(append(append(text, chain...), ' '), c.digests[i][half]...), '\n')
		}
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// forget drops what the planner remembers of things no longer in use.
func (p *Planner) forget(c *compilation) {
	if p.last == nil || p.last.roster != c.roster {
		maps.DeleteFunc(p.policies, func(chain string, _ compiledPolicy) bool { _, used := c.allocation.next.Policies[chain]; return !used })
	}
	maps.DeleteFunc(p.groups, func(name string, _ *parsedGroup) bool { _, there := c.vpc.Groups[name]; return !there })
}
