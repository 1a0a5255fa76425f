package network

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network/policy"
	"github.com/gpuhost/gpuhost/network/ruleset"
)

func groupSet(group string) string { return "sg_" + group }

// boxSet is one lookup of a compiled policy.
func boxSet(chain string, segment int, boxes []policy.Box) *ruleset.Set {
	set := &ruleset.Set{
		Name: fmt.Sprintf("%s_%d", chain, segment), Interval: true,
		Key:  []ruleset.Type{ruleset.TypeAddr, ruleset.TypeProto, ruleset.TypePort},
		Data: []ruleset.Type{ruleset.TypeVerdict},
	}
	for _, b := range boxes {
		set.Elements = append(set.Elements, ruleset.Element{
			From:    ruleset.Concat(ruleset.Addr(policy.Address(b.Remote.From)), ruleset.Proto(b.Protocols.From), ruleset.Port(b.Ports.From)),
			To:      ruleset.Concat(ruleset.Addr(policy.Address(b.Remote.To)), ruleset.Proto(b.Protocols.To), ruleset.Port(b.Ports.To)),
			Verdict: outcome(b.Verdict),
		})
	}
	return set
}

// addEndpoints adds every endpoint's chains, guard and counters.
func (c *compilation) addEndpoints() {
	for _, e := range c.vpc.Endpoints {
		known, there := c.planner.endpoints[e.Instance]
		if !there || !reflect.DeepEqual(known.of, e) {
			known = compileEndpoint(e)
			c.planner.endpoints[e.Instance] = known
		}
		c.router.Chains = append(c.router.Chains, known.chains...)
		c.guard.Chains = append(c.guard.Chains, known.guard)
		for _, d := range []Direction{Ingress, Egress} {
			c.router.Counters = append(c.router.Counters, counterName(e.Instance, Intranet, d), counterName(e.Instance, Internet, d))
		}
	}
}

// addSets adds what endpoints share: the maps that find their chains, the groups'
// members, the published ports and the classes of addresses.
func (c *compilation) addSets() {
	ifname, toVerdict := []ruleset.Type{ruleset.TypeIfname}, []ruleset.Type{ruleset.TypeVerdict}
	from := &ruleset.Set{Name: fromMap, Key: ifname, Data: toVerdict}
	to := &ruleset.Set{Name: toMap, Key: ifname, Data: toVerdict}
	ask := &ruleset.Set{Name: servicesMap, Key: ifname, Data: toVerdict}
	up := ruleset.Ifname(UplinkName)
	from.Elements = append(from.Elements, ruleset.Element{From: up, Verdict: proceed(deliverChain)})
	to.Elements = append(to.Elements, ruleset.Element{From: up, Verdict: verdict(ruleset.Accept)})
	for _, e := range c.vpc.Endpoints {
		link := ruleset.Ifname(LinkName(e.Instance))
		from.Elements = append(from.Elements, ruleset.Element{From: link, Verdict: proceed("from_" + string(e.Instance))})
		to.Elements = append(to.Elements, ruleset.Element{From: link, Verdict: proceed("to_" + string(e.Instance))})
		ask.Elements = append(ask.Elements, ruleset.Element{From: link, Verdict: proceed(servicesChain)})
	}
	c.router.Sets = append(c.router.Sets, from, to, ask, c.publishSet(),
		addressSet(intranetSet, append(intranet(), c.vpc.CIDR)), addressSet(protectSet, c.vpc.Protected))
	for _, group := range slices.Sorted(maps.Keys(c.referenced)) {
		c.router.Sets = append(c.router.Sets, memberSet(group, c.members[group]))
	}
}

func memberSet(group string, members []netip.Addr) *ruleset.Set {
	set := &ruleset.Set{Name: groupSet(group), Key: []ruleset.Type{ruleset.TypeAddr}}
	for _, a := range sorted(members) {
		set.Elements = append(set.Elements, ruleset.Element{From: ruleset.Addr(a)})
	}
	return set
}

func (c *compilation) publishSet() *ruleset.Set {
	set := &ruleset.Set{
		Name: publishMap,
		Key:  []ruleset.Type{ruleset.TypeProto, ruleset.TypePort},
		Data: []ruleset.Type{ruleset.TypeAddr, ruleset.TypePort},
	}
	for _, e := range c.vpc.Endpoints {
		for _, p := range e.Publish {
			set.Elements = append(set.Elements, ruleset.Element{
				From: publishKey(p), Data: ruleset.Concat(ruleset.Addr(e.Address), ruleset.Port(p.Port)),
			})
		}
	}
	return set
}

func publishKey(p spec.Publish) ruleset.Value {
	proto := uint8(protoTCP)
	if p.Protocol == "udp" {
		proto = protoUDP
	}
	return ruleset.Concat(ruleset.Proto(proto), ruleset.Port(p.HostPort))
}

// intranet is what counts as the cloud's own network.
func intranet() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("169.254.0.0/16"),
		netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
	}
}

// addressSet holds networks as ranges that neither overlap nor touch, as the
// kernel's interval sets want them. IPv6 networks are left out: no tenant can
// send IPv6.
func addressSet(name string, networks []netip.Prefix) *ruleset.Set {
	set := &ruleset.Set{Name: name, Key: []ruleset.Type{ruleset.TypeAddr}, Interval: true}
	for _, r := range mergeNetworks(networks) {
		set.Elements = append(set.Elements, ruleset.Element{
			From: ruleset.Addr(policy.Address(r.From)), To: ruleset.Addr(policy.Address(r.To)),
		})
	}
	return set
}

func mergeNetworks(networks []netip.Prefix) []policy.Addresses {
	var ranges []policy.Addresses
	for _, n := range networks {
		if n.Addr().Is4() {
			ranges = append(ranges, policy.AddressesOf(n))
		}
	}
	slices.SortFunc(ranges, func(a, b policy.Addresses) int { return int(int64(a.From) - int64(b.From)) })
	var merged []policy.Addresses
	for _, r := range ranges {
		if n := len(merged); n > 0 && uint64(r.From) <= uint64(merged[n-1].To)+1 {
			merged[n-1].To = max(merged[n-1].To, r.To)
			continue
		}
		merged = append(merged, r)
	}
	return merged
}
