package policy

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// Verdict is what a rule decides.
type Verdict uint8

// The verdicts. What nothing matches is dropped, so Drop is the zero value.
const (
	Drop Verdict = iota
	Accept
)

// String gives the word of the contract.
func (v Verdict) String() string {
	if v == Accept {
		return "accept"
	}
	return "drop"
}

// Ports is an inclusive range of ports.
type Ports struct{ From, To uint16 }

// Protocols is an inclusive range of IP protocol numbers.
type Protocols struct{ From, To uint8 }

// Addresses is an inclusive range of IPv4 addresses, as big-endian numbers.
type Addresses struct{ From, To uint32 }

// anyPort, anyProtocol and anyAddress match everything.
func anyPort() Ports         { return Ports{0, math.MaxUint16} }
func anyProtocol() Protocols { return Protocols{0, math.MaxUint8} }
func anyAddress() Addresses  { return Addresses{0, math.MaxUint32} }
func number(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

// Rule is one normalised line of a security group.
type Rule struct {
	Verdict   Verdict
	Protocols Protocols
	Ports     []Ports // never empty; the whole range where the protocol has no ports
	Remote    Addresses
	Group     string // not "": Remote is unused, the group's members match
}

// String renders the rule in one canonical form: two rules that mean the same
// by their text are equal.
func (r Rule) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s proto %d-%d ports", r.Verdict, r.Protocols.From, r.Protocols.To)
	for _, p := range r.Ports {
		fmt.Fprintf(&text, " %d-%d", p.From, p.To)
	}
	if r.Group != "" {
		return text.String() + " sg:" + r.Group
	}
	fmt.Fprintf(&text, " %08x-%08x", r.Remote.From, r.Remote.To)
	return text.String()
}

// Parse normalises the rules of one direction of a security group. Its errors
// are faults that name the rule by its place and the field.
func Parse(rules []spec.Rule) ([]Rule, error) {
	parsed := make([]Rule, 0, len(rules))
	for i, written := range rules {
		rule, err := parseRule(written)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, fmt.Sprintf("rule %d", i+1), err)
		}
		parsed = append(parsed, rule)
	}
	return parsed, nil
}

func parseRule(written spec.Rule) (Rule, error) {
	if written.Source != "" {
		return Rule{}, fault.New(fault.Invalid, "sourcePorts", "only network ACLs have it")
	}
	verdict, err := parseAction(written.Action)
	if err != nil {
		return Rule{}, err
	}
	protocols, err := parseProtocol(written.Protocol)
	if err != nil {
		return Rule{}, err
	}
	ports, err := parsePorts(written)
	if err != nil {
		return Rule{}, err
	}
	rule := Rule{Verdict: verdict, Protocols: protocols, Ports: ports}
	rule.Remote, rule.Group, err = parseRemote(written.Remote)
	return rule, err
}

func parseAction(text string) (Verdict, error) {
	switch text {
	case "accept":
		return Accept, nil
	case "drop":
		return Drop, nil
	}
	return Drop, fault.New(fault.Invalid, "action", "%q is neither accept nor drop", text)
}

func parseProtocol(text string) (Protocols, error) {
	one := func(n uint8) (Protocols, error) { return Protocols{n, n}, nil }
	switch text {
	case "all":
		return anyProtocol(), nil
	case "icmp":
		return one(1)
	case "tcp":
		return one(6)
	case "udp":
		return one(17)
	case "gre":
		return one(47)
	case "icmpv6":
		return one(58)
	}
	return Protocols{}, fault.New(fault.Invalid, "protocol", "%q is none of tcp, udp, icmp, icmpv6, gre, all", text)
}

// parsePorts reads "22,80,8000-9000". An empty list is every port.
func parsePorts(written spec.Rule) ([]Ports, error) {
	if written.Ports == "" {
		return []Ports{anyPort()}, nil
	}
	if written.Protocol != "tcp" && written.Protocol != "udp" {
		return nil, fault.New(fault.Invalid, "ports", "protocol %s has no ports", written.Protocol)
	}
	var ports []Ports
	for part := range strings.SplitSeq(written.Ports, ",") {
		r, err := parsePortRange(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		ports = append(ports, r)
	}
	return mergePorts(ports), nil
}

// mergePorts puts ranges that overlap or touch together.
func mergePorts(ports []Ports) []Ports {
	slices.SortFunc(ports, func(a, b Ports) int { return int(a.From) - int(b.From) })
	merged := ports[:1]
	for _, r := range ports[1:] {
		last := &merged[len(merged)-1]
		if int(r.From) <= int(last.To)+1 {
			last.To = max(last.To, r.To)
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

func parsePortRange(text string) (Ports, error) {
	low, high, isRange := strings.Cut(text, "-")
	if !isRange {
		high = low
	}
	from, err := strconv.ParseUint(low, 10, 16)
	if err != nil {
		return Ports{}, fault.New(fault.Invalid, "ports", "%q is no port or range of ports", text)
	}
	to, err := strconv.ParseUint(high, 10, 16)
	if err != nil {
		return Ports{}, fault.New(fault.Invalid, "ports", "%q is no port or range of ports", text)
	}
	if from > to {
		return Ports{}, fault.New(fault.Invalid, "ports", "the range %q runs backwards", text)
	}
	return Ports{uint16(from), uint16(to)}, nil
}

// parseRemote reads a CIDR, one address, "a-b", "sg:name" or "any".
func parseRemote(text string) (Addresses, string, error) {
	if group, ok := strings.CutPrefix(text, "sg:"); ok {
		if group == "" {
			return Addresses{}, "", fault.New(fault.Invalid, "remote", "sg: names no group")
		}
		return Addresses{}, group, nil
	}
	if text == "any" {
		return anyAddress(), "", nil
	}
	if strings.Contains(text, "/") {
		remote, err := parsePrefix(text)
		return remote, "", err
	}
	remote, err := parseAddresses(text)
	return remote, "", err
}

func parsePrefix(text string) (Addresses, error) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return Addresses{}, fault.New(fault.Invalid, "remote", "%q is no network", text)
	}
	if !prefix.Addr().Is4() {
		return Addresses{}, fault.New(fault.Unsupported, "remote", "IPv6 is not built yet: %q", text)
	}
	return AddressesOf(prefix), nil
}

// AddressesOf is the range of an IPv4 network.
func AddressesOf(prefix netip.Prefix) Addresses {
	from := number(prefix.Masked().Addr())
	return Addresses{from, from | uint32(math.MaxUint32>>uint(prefix.Bits()))}
}

func parseAddresses(text string) (Addresses, error) {
	low, high, isRange := strings.Cut(text, "-")
	if !isRange {
		high = low
	}
	from, err := parseAddress(low)
	if err != nil {
		return Addresses{}, err
	}
	to, err := parseAddress(high)
	if err != nil {
		return Addresses{}, err
	}
	if from > to {
		return Addresses{}, fault.New(fault.Invalid, "remote", "the range %q runs backwards", text)
	}
	return Addresses{from, to}, nil
}

func parseAddress(text string) (uint32, error) {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return 0, fault.New(fault.Invalid, "remote", "%q is none of a network, an address, a range, sg:GROUP, any", text)
	}
	if !a.Is4() {
		return 0, fault.New(fault.Unsupported, "remote", "IPv6 is not built yet: %q", text)
	}
	return number(a), nil
}
