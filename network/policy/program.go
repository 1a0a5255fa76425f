package policy

import (
	"math"
	"net/netip"
	"slices"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// Packet is what a rule looks at: the remote end's address, the protocol, and
// the port of the end that was connected to.
type Packet struct {
	Remote   netip.Addr
	Protocol uint8
	Port     uint16
}

// Members says whether an address belongs to a group.
type Members func(group string, a netip.Addr) bool

// Evaluate walks the rules in order and lets the first match decide: the
// definition that every compiled form is tested against.
func Evaluate(rules []Rule, members Members, p Packet) Verdict {
	for _, r := range rules {
		if r.matches(members, p) {
			return r.Verdict
		}
	}
	return Drop
}

func (r Rule) matches(members Members, p Packet) bool {
	if p.Protocol < r.Protocols.From || p.Protocol > r.Protocols.To {
		return false
	}
	if !slices.ContainsFunc(r.Ports, func(q Ports) bool { return p.Port >= q.From && p.Port <= q.To }) {
		return false
	}
	if r.Group != "" {
		return members(r.Group, p.Remote)
	}
	a := number(p.Remote)
	return a >= r.Remote.From && a <= r.Remote.To
}

// Box is a set of packets: the product of three ranges, and what happens to them.
type Box struct {
	Remote    Addresses
	Protocols Protocols
	Ports     Ports
	Verdict   Verdict
}

func (b Box) contains(p Packet) bool {
	a := number(p.Remote)
	return a >= b.Remote.From && a <= b.Remote.To &&
		p.Protocol >= b.Protocols.From && p.Protocol <= b.Protocols.To &&
		p.Port >= b.Ports.From && p.Port <= b.Ports.To
}

// Segment is one lookup of a program: either disjoint boxes, or one rule that
// names a group. What it does not match goes on to the next segment.
type Segment struct {
	Boxes []Box
	Group *Rule
}

// Program is a compiled rule list. What no segment matches is dropped.
type Program []Segment

// Evaluate runs the program the way the kernel does.
func (g Program) Evaluate(members Members, p Packet) Verdict {
	for _, s := range g {
		if s.Group != nil && s.Group.matches(members, p) {
			return s.Group.Verdict
		}
		for _, b := range s.Boxes {
			if b.contains(p) {
				return b.Verdict
			}
		}
	}
	return Drop
}

// MaxEntries bounds a compiled list: boxes, and port ranges of rules that name a
// group. The time to compile grows with its square.
const MaxEntries = 10_000

// Compile turns an ordered list into segments of disjoint boxes. One that comes to
// more than MaxEntries is exhausted.
func Compile(rules []Rule) (Program, error) {
	var program Program
	var boxes []Box
	entries := 0 // of the segments before
	flush := func() {
		if len(boxes) > 0 {
			program = append(program, Segment{Boxes: boxes})
			entries += len(boxes)
		}
		boxes = nil
	}
	for i := range rules {
		if rules[i].Group != "" {
			flush()
			program = append(program, Segment{Group: &rules[i]})
			entries += len(rules[i].Ports)
		} else {
			boxes = coverRule(boxes, rules[i], MaxEntries-entries)
		}
		if entries+len(boxes) > MaxEntries {
			return nil, tooMany("the rules", "come to more than %d entries, at rule %d of %d", MaxEntries, i+1, len(rules))
		}
	}
	flush()
	return program, nil
}

// Join makes one program of those of several groups bound together, in their
// order. It shares their segments: a group that changes leaves the lookups of the
// others as they are, and the kernel nothing to do for them. Programs that come to
// more than MaxEntries together are exhausted.
func Join(programs ...Program) (Program, error) {
	joined := slices.Concat(programs...)
	entries := 0
	for _, s := range joined {
		entries += len(s.Boxes)
		if s.Group != nil {
			entries += len(s.Group.Ports)
		}
	}
	if entries > MaxEntries {
		return nil, tooMany("the rules of the groups bound together", "come to more than %d entries", MaxEntries)
	}
	return trim(joined), nil
}

func tooMany(what, format string, args ...any) error {
	return fault.New(fault.Exhausted, "compile rules", what+" "+format, args...).
		WithHint("write wider networks and ranges of ports, or bind fewer groups")
}

// coverRule adds what of a rule no earlier box has decided, and gives up with more
// boxes than most.
func coverRule(boxes []Box, rule Rule, most int) []Box {
	for _, ports := range rule.Ports {
		boxes = cover(boxes, Box{rule.Remote, rule.Protocols, ports, rule.Verdict}, most)
		if len(boxes) > most {
			break
		}
	}
	return boxes
}

// trim leaves out what changes nothing at the end of a program, where dropped
// and unmatched are the same.
func trim(program Program) Program {
	for len(program) > 0 {
		last := &program[len(program)-1]
		if last.Group != nil && last.Group.Verdict == Accept {
			return program
		}
		if last.Group == nil {
			last.Boxes = accepting(last.Boxes)
			if len(last.Boxes) > 0 {
				return program
			}
		}
		program = program[:len(program)-1]
	}
	return program
}

// accepting leaves out what drops. What others share is not changed.
func accepting(boxes []Box) []Box {
	drops := func(b Box) bool { return b.Verdict == Drop }
	if !slices.ContainsFunc(boxes, drops) {
		return boxes
	}
	return slices.DeleteFunc(slices.Clone(boxes), drops)
}

// cover adds the part of add that no earlier box has decided, and gives up with more
// boxes than most.
func cover(boxes []Box, add Box, most int) []Box {
	rest, left := []Box{add}, []Box(nil)
	for i := range boxes {
		if !overlap(&boxes[i], &add) {
			continue // most are apart
		}
		left = left[:0]
		for _, r := range rest {
			left = subtract(left, r, boxes[i])
		}
		rest, left = left, rest
		if len(rest) == 0 {
			return boxes
		}
		if len(rest) > most {
			break
		}
	}
	return append(boxes, rest...)
}

// subtract appends the parts of a that lie outside b: at most two a dimension,
// cut so that the widest dimension, the address, is cut last.
func subtract(out []Box, a, b Box) []Box {
	if !overlap(&a, &b) {
		return append(out, a)
	}
	if a.Protocols.From < b.Protocols.From {
		below := a
		below.Protocols.To = b.Protocols.From - 1
		out, a.Protocols.From = append(out, below), b.Protocols.From
	}
	if a.Protocols.To > b.Protocols.To {
		above := a
		above.Protocols.From = b.Protocols.To + 1
		out, a.Protocols.To = append(out, above), b.Protocols.To
	}
	if a.Ports.From < b.Ports.From {
		below := a
		below.Ports.To = b.Ports.From - 1
		out, a.Ports.From = append(out, below), b.Ports.From
	}
	if a.Ports.To > b.Ports.To {
		above := a
		above.Ports.From = b.Ports.To + 1
		out, a.Ports.To = append(out, above), b.Ports.To
	}
	if a.Remote.From < b.Remote.From {
		below := a
		below.Remote.To = b.Remote.From - 1
		out, a.Remote.From = append(out, below), b.Remote.From
	}
	if a.Remote.To > b.Remote.To {
		above := a
		above.Remote.From = b.Remote.To + 1
		out = append(out, above)
	}
	return out
}

func overlap(a, b *Box) bool {
	return a.Remote.From <= b.Remote.To && b.Remote.From <= a.Remote.To &&
		a.Protocols.From <= b.Protocols.To && b.Protocols.From <= a.Protocols.To &&
		a.Ports.From <= b.Ports.To && b.Ports.From <= a.Ports.To
}

// Address turns a box's number back into an address.
func Address(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n & math.MaxUint8)})
}

// References lists the groups that rules name, sorted, each once.
func References(rules []Rule) []string {
	var names []string
	for _, r := range rules {
		if r.Group != "" {
			names = append(names, r.Group)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
