package spec

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// Actions of a rule.
const (
	ActionAccept = "accept"
	ActionDrop   = "drop"
)

// Protocols of a rule.
const (
	ProtocolTCP    = "tcp"
	ProtocolUDP    = "udp"
	ProtocolICMP   = "icmp"
	ProtocolICMPv6 = "icmpv6"
	ProtocolGRE    = "gre"
	ProtocolAll    = "all"
)

// GroupPrefix begins a remote that is a security group of the same tenant.
const GroupPrefix = "sg:"

// maxPortItems bounds one list; more belong into another rule.
const maxPortItems = 64

// PortRange is First to Last, both included; one port has them equal.
type PortRange struct {
	First uint16
	Last  uint16
}

// String writes the range as ParsePorts reads it.
func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return strconv.Itoa(int(r.First)) + "-" + strconv.Itoa(int(r.Last))
}

// Contains says whether the port is one of the range.
func (r PortRange) Contains(port uint16) bool { return r.First <= port && port <= r.Last }

// Remote is the other side of a rule. Exactly one field is set, none for "any".
type Remote struct {
	Prefix netip.Prefix
	From   netip.Addr // an address range, From <= To, both of one family
	To     netip.Addr
	Group  string // a security group of the same tenant
}

// Any says whether every address is meant.
func (r Remote) Any() bool { return r == Remote{} }

// ParsePorts reads "22,80,8000-9000". An empty text is no list: all ports.
func ParsePorts(text string) ([]PortRange, error) {
	if text == "" {
		return nil, nil
	}
	items := strings.Split(text, ",")
	if len(items) > maxPortItems {
		return nil, portsProblem(text, "the list has more than 64 items")
	}
	ranges := make([]PortRange, len(items))
	for i, item := range items {
		first, last, isRange := strings.Cut(strings.TrimSpace(item), "-")
		if !isRange {
			last = first
		}
		from, fromOK := parsePort(first)
		to, toOK := parsePort(last)
		switch {
		case !fromOK || !toOK:
			return nil, portsProblem(text, "a port is a number from 1 to 65535")
		case from > to:
			return nil, portsProblem(text, "a range starts with its lower port")
		}
		ranges[i] = PortRange{First: from, Last: to}
	}
	return ranges, nil
}

func portsProblem(text, why string) error {
	return fault.New(fault.Invalid, "ports "+quote(text), "%s", why).WithHint(`write them like "22,80,8000-9000"`)
}

// ParseRemote reads a CIDR, one address, a range "a-b", "sg:name" or "any".
// IPv6 is understood and answered with an unsupported fault.
func ParseRemote(text string) (Remote, error) {
	refuse := func(why string) (Remote, error) {
		return Remote{}, fault.New(fault.Invalid, "remote "+quote(text), "%s", why).
			WithHint("write a CIDR, an address, a range a-b, sg:NAME or any")
	}
	if text == "any" {
		return Remote{}, nil
	}
	if group, is := strings.CutPrefix(text, GroupPrefix); is {
		if why := labelProblem(group); why != "" {
			return refuse("the group's name " + why)
		}
		return Remote{Group: group}, nil
	}
	remote, why := parseAddresses(text)
	switch {
	case why != "":
		return refuse(why)
	case remote.Prefix.Addr().Is6() || remote.From.Is6():
		return Remote{}, fault.New(fault.Unsupported, "remote "+quote(text), "IPv6 is not built yet")
	}
	return remote, nil
}

func parseAddresses(text string) (remote Remote, why string) {
	if first, last, isRange := strings.Cut(text, "-"); isRange {
		from, fromErr := netip.ParseAddr(first)
		to, toErr := netip.ParseAddr(last)
		switch {
		case fromErr != nil || toErr != nil || from.Zone() != "" || to.Zone() != "":
			return Remote{}, "is not a range of two addresses"
		case from.BitLen() != to.BitLen():
			return Remote{}, "mixes IPv4 and IPv6"
		case to.Less(from):
			return Remote{}, "ends before it starts"
		}
		return Remote{From: from, To: to}, ""
	}
	if address, err := netip.ParseAddr(text); err == nil && address.Zone() == "" {
		return Remote{Prefix: netip.PrefixFrom(address, address.BitLen())}, ""
	}
	prefix, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return Remote{}, "is no address, network, range or group"
	case prefix != prefix.Masked():
		return Remote{}, "has bits beyond its prefix length; the network is " + prefix.Masked().String()
	}
	return Remote{Prefix: prefix}, ""
}
