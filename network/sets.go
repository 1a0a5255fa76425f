package network

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network/policy"
	"github.com/gpuhost/gpuhost/network/ruleset"
)

func groupSet(group string) string { return "sg_" + group }

// boxSet is the set of a segment of the policy, if it is this very one; else nil.
func (p compiledPolicy) boxSet(i int, segment policy.Segment) *ruleset.Set {
	if i >= len(p.program) || len(p.program[i].Boxes) != len(segment.Boxes) || &p.program[i].Boxes[0] != &segment.Boxes[0] {
		return nil
	}
	sets := p.sets
	for _, earlier := range p.program[:i] {
		if earlier.Group == nil {
			sets = sets[1:]
		}
	}
	return sets[0]
}

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

// memberSet is a group's, sorted.
func memberSet(group string, members []netip.Addr) *ruleset.Set {
	set := &ruleset.Set{Name: groupSet(group), Key: []ruleset.Type{ruleset.TypeAddr}}
	for _, a := range members {
		set.Elements = append(set.Elements, ruleset.Element{From: ruleset.Addr(a)})
	}
	return set
}

func publishSet(endpoints []*compiledEndpoint) *ruleset.Set {
	set := &ruleset.Set{
		Name: publishMap,
		Key:  []ruleset.Type{ruleset.TypeProto, ruleset.TypePort},
		Data: []ruleset.Type{ruleset.TypeAddr, ruleset.TypePort},
	}
	for _, e := range endpoints {
		for _, p := range e.of.Publish {
			set.Elements = append(set.Elements, ruleset.Element{
				From: publishKey(p), Data: ruleset.Concat(ruleset.Addr(e.of.Address), ruleset.Port(p.Port)),
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

// protectedSet holds what no tenant may open connections to: the operator's
// networks, and always the link-local one, where clouds keep their machines'
// credentials. The VPC's own services are not asked by way of the uplink.
func protectedSet(networks []netip.Prefix) *ruleset.Set {
	return addressSet(protectSet, append(slices.Clone(networks), netip.MustParsePrefix("169.254.0.0/16")))
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
