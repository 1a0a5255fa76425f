package ruleset

import (
	"fmt"
	"net/netip"
	"strings"
)

// Field is what of a packet, or of its connection, an expression looks at. Its
// text is nft's own.
type Field string

// The fields.
const (
	Iifname       Field = "iifname"
	Oifname       Field = "oifname"
	NfProto       Field = "meta nfproto"
	L4Proto       Field = "meta l4proto"
	EtherProtocol Field = "ether type" // of the frame as it came: a VLAN tag is one of its own
	EtherSource   Field = "ether saddr"
	Source        Field = "ip saddr"
	Destination   Field = "ip daddr"
	DestPort      Field = "th dport"
	CtState       Field = "ct state"
	CtStatus      Field = "ct status"
	CtDirection   Field = "ct direction"
	CtMark        Field = "ct mark"
	CtProtocol    Field = "ct protocol"
	CtOriginator  Field = "ct original ip saddr" // who opened the connection
	CtResponder   Field = "ct reply ip saddr"    // who answers, behind any translation
	CtServicePort Field = "ct reply proto-src"   // the answering end's port, behind any translation
	FibType       Field = "fib daddr type"
)

// Type is the type of the field's values.
func (f Field) Type() Type {
	switch f {
	case Iifname, Oifname:
		return TypeIfname
	case NfProto:
		return TypeFamily
	case L4Proto, CtProtocol:
		return TypeProto
	case EtherProtocol:
		return TypeEther
	case EtherSource:
		return TypeMAC
	case Source, Destination, CtOriginator, CtResponder:
		return TypeAddr
	case DestPort, CtServicePort:
		return TypePort
	case CtState:
		return TypeState
	case CtStatus:
		return TypeStatus
	case CtDirection:
		return TypeDir
	case FibType:
		return TypeFib
	}
	return TypeMark
}

func join(fields []Field) string {
	words := make([]string, len(fields))
	for i, f := range fields {
		words[i] = string(f)
	}
	return strings.Join(words, " . ")
}

// Expr is one expression of a rule. String gives its text in nft's manner.
type Expr interface {
	String() string
	expr()
}

// Match compares a field, masked where Mask is set, with a value.
type Match struct {
	Field Field
	Mask  uint32 // only for 4-byte fields in host order; 0 is no mask
	Not   bool
	Value Value
}

// InRange matches a field within an inclusive range.
type InRange struct {
	Field    Field
	From, To Value
}

// In matches a key that is in a set.
type In struct {
	Fields []Field
	Mask   uint32 // only for one field of 4 bytes in host order; 0 is no mask
	Set    string
	Not    bool
}

// Map looks a key up in a verdict map; a key that is not there goes on.
type Map struct {
	Fields []Field
	Map    string
}

// DNAT translates the destination to what a map holds for a key: an address, or
// an address and a port.
type DNAT struct {
	Fields   []Field
	Map      string
	WithPort bool
}

// SNAT translates the source to one address.
type SNAT struct{ Address netip.Addr }

// Masquerade translates the source to the address of the interface it leaves by.
type Masquerade struct{}

// SetMark keeps some bits of the connection's mark and sets others.
type SetMark struct{ Keep, Or uint32 }

// Count adds the packet to a named counter.
type Count struct{ Counter string }

// Socket matches a packet that a socket of the namespace it is in would get. Only
// prerouting asks for the receiver's; further out a packet has its sender's.
type Socket struct{}

// VerdictKind is what happens to a packet.
type VerdictKind string

// The verdicts.
const (
	Accept VerdictKind = "accept"
	Drop   VerdictKind = "drop"
	Return VerdictKind = "return"
	Jump   VerdictKind = "jump"
	Goto   VerdictKind = "goto"
)

// Verdict ends a rule or is what a verdict map holds.
type Verdict struct {
	Kind  VerdictKind
	Chain string // of Jump and Goto
}

func (Match) expr()      {}
func (InRange) expr()    {}
func (In) expr()         {}
func (Map) expr()        {}
func (DNAT) expr()       {}
func (SNAT) expr()       {}
func (Masquerade) expr() {}
func (SetMark) expr()    {}
func (Count) expr()      {}
func (Socket) expr()     {}
func (Verdict) expr()    {}

// String implements Expr.
func (m Match) String() string {
	mask, op := "", "=="
	if m.Mask != 0 {
		mask = fmt.Sprintf(" & 0x%x", m.Mask)
	}
	if m.Not {
		op = "!="
	}
	return fmt.Sprintf("%s%s %s %s", m.Field, mask, op, m.Value.text(m.Field.Type()))
}

// String implements Expr.
func (r InRange) String() string {
	t := r.Field.Type()
	return fmt.Sprintf("%s %s-%s", r.Field, r.From.text(t), r.To.text(t))
}

// String implements Expr.
func (i In) String() string {
	not := ""
	if i.Not {
		not = "!= "
	}
	mask := ""
	if i.Mask != 0 {
		mask = fmt.Sprintf(" & 0x%x", i.Mask)
	}
	return fmt.Sprintf("%s%s %s@%s", join(i.Fields), mask, not, i.Set)
}

// String implements Expr.
func (m Map) String() string { return join(m.Fields) + " vmap @" + m.Map }

// String implements Expr.
func (d DNAT) String() string {
	to := ""
	if d.WithPort {
		to = "addr . port "
	}
	return "dnat ip " + to + "to " + join(d.Fields) + " map @" + d.Map
}

// String implements Expr.
func (s SNAT) String() string { return "snat ip to " + s.Address.String() }

// String implements Expr.
func (Masquerade) String() string { return "masquerade fully-random" }

// String implements Expr.
func (s SetMark) String() string {
	return fmt.Sprintf("ct mark set ct mark & 0x%x | 0x%x", s.Keep, s.Or)
}

// String implements Expr.
func (c Count) String() string { return fmt.Sprintf("counter name %q", c.Counter) }

// String implements Expr. Whatever the socket is like: that there is one matters.
func (Socket) String() string { return "socket transparent <= 1" }

// String implements Expr.
func (v Verdict) String() string {
	if v.Chain == "" {
		return string(v.Kind)
	}
	return string(v.Kind) + " " + v.Chain
}
