package ruleset

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Type is the type of a value in a key or a datum.
type Type string

// The types, named as nft names them.
const (
	TypeAddr    Type = "ipv4_addr"
	TypeProto   Type = "inet_proto"
	TypePort    Type = "inet_service"
	TypeIfname  Type = "ifname"
	TypeMark    Type = "mark"
	TypeMAC     Type = "ether_addr"
	TypeEther   Type = "ether_type"
	TypeState   Type = "ct_state"
	TypeStatus  Type = "ct_status"
	TypeDir     Type = "ct_dir"
	TypeFib     Type = "fib_addrtype"
	TypeFamily  Type = "nf_proto"
	TypeVerdict Type = "verdict"
)

// Size is the length in bytes of a value on the wire, without padding.
func (t Type) Size() int {
	switch t {
	case TypeProto, TypeDir, TypeFamily:
		return 1
	case TypePort, TypeEther:
		return 2
	case TypeMAC:
		return 6
	case TypeIfname:
		return 16
	case TypeVerdict:
		return 0
	}
	return 4
}

// padded is the length within a concatenation, where every field fills whole
// registers of 4 bytes.
func (t Type) padded() int { return (t.Size() + 3) &^ 3 }

// Value is one value as the kernel keeps it: network order for what is on the
// wire, host order for marks and states. A concatenation is its fields, each
// padded to 4 bytes.
type Value string

// Addr is an IPv4 address.
func Addr(a netip.Addr) Value { b := a.As4(); return Value(b[:]) }

// Proto is an IP protocol number.
func Proto(p uint8) Value { return Value([]byte{p}) }

// Port is a transport port.
func Port(p uint16) Value { return Value(binary.BigEndian.AppendUint16(nil, p)) }

// EtherType is an Ethernet protocol number.
func EtherType(p uint16) Value { return Port(p) }

// MAC is an Ethernet address.
func MAC(m net.HardwareAddr) Value { return Value(m) }

// Ifname is an interface's name.
func Ifname(name string) Value {
	var b [16]byte
	copy(b[:15], name)
	return Value(b[:])
}

// Word is a number in host order: a mark, a state, an address type.
func Word(n uint32) Value { return Value(binary.NativeEndian.AppendUint32(nil, n)) }

// Byte is a number of one byte: a direction, a family.
func Byte(n uint8) Value { return Value([]byte{n}) }

// Concat joins the fields of a key. A single field stays as it is.
func Concat(fields ...Value) Value {
	if len(fields) == 1 {
		return fields[0]
	}
	var joined []byte
	for _, f := range fields {
		joined = append(joined, f...)
		for len(joined)%4 != 0 {
			joined = append(joined, 0)
		}
	}
	return Value(joined)
}

// split undoes Concat.
func split(types []Type, v Value) []Value {
	if len(types) == 1 {
		return []Value{v}
	}
	fields := make([]Value, 0, len(types))
	for _, t := range types {
		if len(v) < t.padded() {
			return append(fields, v)
		}
		fields = append(fields, v[:t.Size()])
		v = v[t.padded():]
	}
	return fields
}

// text renders one field.
func (v Value) text(t Type) string {
	if len(v) < t.Size() {
		return fmt.Sprintf("%x", string(v))
	}
	b := []byte(v)
	switch t {
	case TypeAddr:
		a, _ := netip.AddrFromSlice(b[:4])
		return a.String()
	case TypePort:
		return fmt.Sprint(binary.BigEndian.Uint16(b))
	case TypeEther:
		return fmt.Sprintf("0x%04x", binary.BigEndian.Uint16(b))
	case TypeProto, TypeFamily:
		return fmt.Sprint(b[0])
	case TypeDir:
		return map[byte]string{0: "original", 1: "reply"}[b[0]]
	case TypeMAC:
		return net.HardwareAddr(b).String()
	case TypeIfname:
		return fmt.Sprintf("%q", strings.TrimRight(string(v), "\x00"))
	}
	return fmt.Sprintf("0x%x", binary.NativeEndian.Uint32(b))
}

// rangeText renders a key, or a range of keys field by field: "10.0.0.0-10.0.0.9 . 6".
func rangeText(types []Type, from, to Value) string {
	low, high := split(types, from), split(types, to)
	var parts []string
	for i, t := range types {
		text := low[i].text(t)
		if to != "" && i < len(high) && high[i] != low[i] {
			text += "-" + high[i].text(t)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, " . ")
}
