package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network/ruleset"
)

// roster is all that follows from a VPC's endpoints alone. A changed rule leaves
// it, and what it holds, the very same.
type roster struct {
	endpoints []*compiledEndpoint     // by instance
	lists     []groupList             // in use, by key
	members   map[string][]netip.Addr // of groups, sorted
	groups    map[string]group        // that were asked for
	chains    []*ruleset.Chain
	guards    []*ruleset.Chain
	counters  []string
	sets      []*ruleset.Set
	digest    string
}

// group is who is in a group.
type group struct {
	digest string
	set    *ruleset.Set
}

// groupList is an ordered list of groups that endpoints are bound to.
type groupList struct {
	key    string
	groups []string
	chains [2]string // of its policies: ingress, egress
}

type compiledEndpoint struct {
	of       Endpoint
	list     string // its groups' key
	chains   []*ruleset.Chain
	guard    *ruleset.Chain
	counters []string
}

func listKey(groups []string) string { return shortHash(strings.Join(groups, "\n")) }

func chainOf(s side, key string) string { return s.prefix + "_" + key }

// of is the roster of these endpoints: the same one where they are the same.
func (r *roster) of(endpoints []Endpoint) *roster {
	compiled := r.compile(endpoints)
	if r.sets != nil && slices.Equal(compiled, r.endpoints) {
		return r
	}
	next := &roster{endpoints: compiled, members: map[string][]netip.Addr{}, groups: map[string]group{}}
	known := map[string]bool{}
	for _, e := range compiled {
		next.chains = append(next.chains, e.chains...)
		next.guards = append(next.guards, e.guard)
		next.counters = append(next.counters, e.counters...)
		for _, g := range e.of.Groups {
			next.members[g] = append(next.members[g], e.of.Address)
		}
		if !known[e.list] {
			known[e.list] = true
			next.lists = append(next.lists, groupList{e.list, e.of.Groups, [2]string{chainOf(inbound(), e.list), chainOf(outbound(), e.list)}})
		}
	}
	for g, members := range next.members {
		slices.SortFunc(members, netip.Addr.Compare)
		next.members[g] = slices.Compact(members)
	}
	slices.SortFunc(next.lists, func(a, b groupList) int { return strings.Compare(a.key, b.key) })
	next.sets = append(linkMaps(compiled), publishSet(compiled))
	next.digest = describe(compiled)
	return next
}

// group is who is in a group that a rule names.
func (r *roster) group(name string) group {
	known, there := r.groups[name]
	if !there {
		known = group{shortHash(fmt.Sprint(r.members[name])), memberSet(name, r.members[name])}
		r.groups[name] = known
	}
	return known
}

// compile compiles what the roster does not have.
func (r *roster) compile(endpoints []Endpoint) []*compiledEndpoint {
	known := make(map[spec.UID]*compiledEndpoint, len(r.endpoints))
	for _, e := range r.endpoints {
		known[e.of.Instance] = e
	}
	compiled := make([]*compiledEndpoint, len(endpoints))
	for i, e := range endpoints {
		if compiled[i] = known[e.Instance]; compiled[i] == nil || !compiled[i].of.equal(e) {
			compiled[i] = compileEndpoint(e)
		}
	}
	slices.SortFunc(compiled, func(a, b *compiledEndpoint) int { return strings.Compare(string(a.of.Instance), string(b.of.Instance)) })
	return compiled
}

func (e Endpoint) equal(other Endpoint) bool {
	return e.Instance == other.Instance && e.Name == other.Name && e.Address == other.Address && e.Netns == other.Netns &&
		slices.Equal(e.Groups, other.Groups) && slices.Equal(e.Publish, other.Publish)
}

func compileEndpoint(e Endpoint) *compiledEndpoint {
	e.Groups, e.Publish = slices.Clone(e.Groups), slices.Clone(e.Publish)
	compiled := &compiledEndpoint{of: e, list: listKey(e.Groups), chains: endpointChains(e), guard: guardChain(e)}
	for _, d := range []Direction{Ingress, Egress} {
		compiled.counters = append(compiled.counters, counterName(e.Instance, Intranet, d), counterName(e.Instance, Internet, d))
	}
	return compiled
}

// linkMaps find the endpoints' chains by their links, and let them ask the VPC's
// services.
func linkMaps(endpoints []*compiledEndpoint) []*ruleset.Set {
	ifname, toVerdict := []ruleset.Type{ruleset.TypeIfname}, []ruleset.Type{ruleset.TypeVerdict}
	from := &ruleset.Set{Name: fromMap, Key: ifname, Data: toVerdict}
	to := &ruleset.Set{Name: toMap, Key: ifname, Data: toVerdict}
	ask := &ruleset.Set{Name: servicesMap, Key: ifname, Data: toVerdict}
	up := ruleset.Ifname(UplinkName)
	from.Elements = append(from.Elements, ruleset.Element{From: up, Verdict: proceed(deliverChain)})
	to.Elements = append(to.Elements, ruleset.Element{From: up, Verdict: verdict(ruleset.Accept)})
	for _, e := range endpoints {
		uid := string(e.of.Instance)
		link := ruleset.Ifname(LinkName(e.of.Instance))
		from.Elements = append(from.Elements, ruleset.Element{From: link, Verdict: proceed("from_" + uid)})
		to.Elements = append(to.Elements, ruleset.Element{From: link, Verdict: proceed("to_" + uid)})
		ask.Elements = append(ask.Elements, ruleset.Element{From: link, Verdict: proceed(servicesChain)})
	}
	return []*ruleset.Set{from, to, ask}
}

func describe(endpoints []*compiledEndpoint) string {
	var text strings.Builder
	for _, e := range endpoints {
		fmt.Fprintln(&text, e.of.Instance, e.of.Address, e.of.Groups, e.of.Publish)
	}
	return longHash(text.String())
}

// surroundings are what all endpoints of a VPC share and its rules do not change.
type surroundings struct {
	cidr      netip.Prefix
	transit   Transit
	protected []netip.Prefix
	chains    []*ruleset.Chain
	sets      []*ruleset.Set
	digest    string
}

// of is the surroundings of this VPC: the same ones where they are the same.
func (s *surroundings) of(vpc VPC) *surroundings {
	if s.sets != nil && s.cidr == vpc.CIDR && s.transit == vpc.Transit && slices.Equal(s.protected, vpc.Protected) {
		return s
	}
	return &surroundings{
		cidr: vpc.CIDR, transit: vpc.Transit, protected: slices.Clone(vpc.Protected),
		chains: append(fixedChains(), snatChain(vpc.Transit.Router)),
		sets: []*ruleset.Set{
			addressSet(intranetSet, append(intranet(), vpc.CIDR)),
			addressSet(insideSet, []netip.Prefix{vpc.CIDR}),
			protectedSet(vpc.Protected),
		},
		digest: longHash(fmt.Sprintln(vpc.CIDR, vpc.Transit, vpc.Protected)),
	}
}
