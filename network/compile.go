package network

import (
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
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
}

// Planner compiles VPCs and makes plans. It is pure: what it remembers between
// calls only saves work, because unchanged groups and endpoints keep the very
// chains and sets they had, and a diff passes over those. One planner serves one
// VPC and one goroutine at a time.
type Planner struct {
	table     string
	groups    map[string]parsedGroup
	policies  map[string]compiledPolicy // by chain
	endpoints map[spec.UID]compiledEndpoint
	fixed     []*ruleset.Chain
}

// NewPlanner makes a planner whose tables carry the host's id.
func NewPlanner(hostID string) *Planner {
	return &Planner{
		table:     TableName(hostID),
		groups:    map[string]parsedGroup{},
		policies:  map[string]compiledPolicy{},
		endpoints: map[spec.UID]compiledEndpoint{},
		fixed:     fixedChains(),
	}
}

type parsedGroup struct {
	written         spec.SecurityGroupSpec
	ingress, egress []policy.Rule
	digest          [2]string   // of ingress, egress
	names           [2][]string // the groups that ingress and egress name
}

// compiledPolicy is one direction of one ordered list of groups.
type compiledPolicy struct {
	stamp  Stamp
	chains []*ruleset.Chain
	sets   []*ruleset.Set
}

type compiledEndpoint struct {
	of     Endpoint
	chains []*ruleset.Chain
	guard  *ruleset.Chain
}

// Compile makes the rules of a VPC. Policies whose meaning is as in have keep
// their epoch. The error names the group or rule that is wrong.
func (p *Planner) Compile(vpc VPC, have Marks) (*Rules, error) {
	c := &compilation{planner: p, vpc: vpc, lists: map[string][]string{}, members: map[string][]netip.Addr{}}
	if err := c.collect(); err != nil {
		return nil, err
	}
	c.allocation = newAllocation(have, c.digests)
	c.router = &ruleset.Table{Family: ruleset.INet, Name: p.table}
	c.guard = guardTable(p.table)
	c.guard.Counters = []string{spoofCounter}
	c.addPolicies()
	c.addEndpoints()
	c.addSets()
	marks := c.allocation.next
	marks.Generation = c.generation()
	c.router.Chains = append(c.router.Chains, p.fixed...)
	c.router.Chains = append(c.router.Chains, snatChain(vpc.Transit.Router), markChain(marks))
	c.router.Counters = append(c.router.Counters, fixedCounters()...)
	p.forget(c)
	return &Rules{Guard: c.guard, Router: c.router, Marks: marks, Stale: c.allocation.stale}, nil
}

// compilation is the state of one Compile.
type compilation struct {
	planner    *Planner
	vpc        VPC
	lists      map[string][]string     // ordered group lists in use, by their hash
	members    map[string][]netip.Addr // of groups that are bound
	referenced map[string]bool         // groups that rules in use name
	digests    map[string]string       // by policy chain
	allocation *allocation
	router     *ruleset.Table
	guard      *ruleset.Table
}

func listKey(groups []string) string { return shortHash(strings.Join(groups, "\n")) }

// collect finds which policies are in use and what each means.
func (c *compilation) collect() error {
	c.referenced, c.digests = map[string]bool{}, map[string]string{}
	c.vpc.Endpoints = slices.Clone(c.vpc.Endpoints)
	slices.SortFunc(c.vpc.Endpoints, func(a, b Endpoint) int { return strings.Compare(string(a.Instance), string(b.Instance)) })
	for _, e := range c.vpc.Endpoints {
		c.lists[listKey(e.Groups)] = e.Groups
		for _, g := range e.Groups {
			c.members[g] = append(c.members[g], e.Address)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(c.lists)) {
		if err := c.parse(c.lists[key]); err != nil {
			return err
		}
	}
	for key, list := range c.lists {
		c.digests[chainOf(inbound(), key)] = c.digest(inbound(), list)
		c.digests[chainOf(outbound(), key)] = c.digest(outbound(), list)
	}
	return nil
}

func chainOf(s side, key string) string { return s.prefix + "_" + key }

func (c *compilation) parse(list []string) error {
	for _, name := range list {
		group, there := c.vpc.Groups[name]
		if !there {
			return fault.New(fault.Invalid, "compile network "+c.vpc.Name, "security group %q does not exist", name)
		}
		parsed, err := c.planner.parseGroup(name, group.Spec)
		if err != nil {
			return err
		}
		for _, referenced := range slices.Concat(parsed.names[0], parsed.names[1]) {
			if _, there := c.vpc.Groups[referenced]; !there {
				return fault.New(fault.Invalid, "security group "+name, "it names group %q, which does not exist", referenced)
			}
			c.referenced[referenced] = true
		}
	}
	return nil
}

func (p *Planner) parseGroup(name string, written spec.SecurityGroupSpec) (parsedGroup, error) {
	known, there := p.groups[name]
	if there && slices.Equal(known.written.Ingress, written.Ingress) && slices.Equal(known.written.Egress, written.Egress) {
		return known, nil
	}
	parsed := parsedGroup{written: written}
	var err error
	if parsed.ingress, err = policy.Parse(written.Ingress); err != nil {
		return parsed, fault.Wrap(fault.Invalid, "security group "+name+" ingress", err)
	}
	if parsed.egress, err = policy.Parse(written.Egress); err != nil {
		return parsed, fault.Wrap(fault.Invalid, "security group "+name+" egress", err)
	}
	parsed.digest = [2]string{digestRules(parsed.ingress), digestRules(parsed.egress)}
	parsed.names = [2][]string{policy.References(parsed.ingress), policy.References(parsed.egress)}
	p.groups[name] = parsed
	return parsed, nil
}

func digestRules(rules []policy.Rule) string {
	var text strings.Builder
	for _, r := range rules {
		text.WriteString(r.String())
		text.WriteByte('\n')
	}
	return shortHash(text.String())
}

func (g parsedGroup) rules(s side) []policy.Rule {
	if s.half() == 0 {
		return g.ingress
	}
	return g.egress
}

// digest names what a policy means: its rules, and who is in the groups they name.
func (c *compilation) digest(s side, list []string) string {
	var text strings.Builder
	for _, name := range list {
		group := c.planner.groups[name]
		fmt.Fprintf(&text, "%s %s\n", name, group.digest[s.half()])
		for _, referenced := range group.names[s.half()] {
			fmt.Fprintf(&text, "%s has %v\n", referenced, sorted(c.members[referenced]))
		}
	}
	return shortHash(text.String())
}

func sorted(addresses []netip.Addr) []netip.Addr {
	out := slices.Clone(addresses)
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// addPolicies adds both directions of every group list in use.
func (c *compilation) addPolicies() {
	for _, key := range slices.Sorted(maps.Keys(c.lists)) {
		for _, s := range []side{inbound(), outbound()} {
			compiled := c.policy(s, key)
			c.router.Sets = append(c.router.Sets, compiled.sets...)
			c.router.Chains = append(c.router.Chains, compiled.chains...)
		}
	}
}

func (c *compilation) policy(s side, key string) compiledPolicy {
	chain := chainOf(s, key)
	stamp := c.allocation.stamp(s, chain, c.digests[chain])
	if known, there := c.planner.policies[chain]; there && known.stamp == stamp {
		return known
	}
	var rules []policy.Rule
	for _, name := range c.lists[key] {
		rules = append(rules, c.planner.groups[name].rules(s)...)
	}
	compiled := compilePolicy(s, chain, stamp, policy.Compile(rules))
	c.planner.policies[chain] = compiled
	return compiled
}

// generation names the meaning of everything loaded, whatever epochs it got.
func (c *compilation) generation() string {
	h := fnv.New64a()
	fmt.Fprintln(h, c.planner.table, c.vpc.CIDR, c.vpc.Transit)
	for _, chain := range slices.Sorted(maps.Keys(c.digests)) {
		fmt.Fprintln(h, chain, c.digests[chain])
	}
	for _, s := range c.router.Sets {
		if s.Interval && s.Data != nil || s.Key[0] == ruleset.TypeMark {
			continue // a policy's boxes, which its digest names, and its epoch
		}
		fmt.Fprintln(h, s.Name, len(s.Elements), s.Elements)
	}
	for _, e := range c.vpc.Endpoints {
		fmt.Fprintln(h, e.Instance, e.Address, e.Groups)
	}
	return fmt.Sprintf("%016x", h.Sum64())
}

// forget drops what the planner remembers of things no longer in use.
func (p *Planner) forget(c *compilation) {
	maps.DeleteFunc(p.policies, func(chain string, _ compiledPolicy) bool { return c.digests[chain] == "" })
	maps.DeleteFunc(p.groups, func(name string, _ parsedGroup) bool { _, there := c.vpc.Groups[name]; return !there })
	present := make(map[spec.UID]bool, len(c.vpc.Endpoints))
	for _, e := range c.vpc.Endpoints {
		present[e.Instance] = true
	}
	maps.DeleteFunc(p.endpoints, func(uid spec.UID, _ compiledEndpoint) bool { return !present[uid] })
}
