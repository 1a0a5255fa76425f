package nft

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/network/ruleset"
)

// Registers: the first is addressed whole by 1, its 4-byte parts by 8, 9, ….
const (
	registerWhole = 1
	registerPart  = 8
	registerZero  = 0 // the verdict register
)

// encode turns a rule's expressions into the library's.
func encode(rule ruleset.Rule) ([]expr.Any, error) {
	var out []expr.Any
	for _, e := range rule.Exprs {
		encoded, err := encodeExpr(e)
		if err != nil {
			return nil, fmt.Errorf("encode %q: %w", rule.Text(), err)
		}
		out = append(out, encoded...)
	}
	return out, nil
}

func encodeExpr(e ruleset.Expr) ([]expr.Any, error) {
	switch e := e.(type) {
	case ruleset.Match:
		return encodeMatch(e), nil
	case ruleset.InRange:
		return []expr.Any{load(e.Field, registerWhole), &expr.Range{
			Op: expr.CmpOpEq, Register: registerWhole, FromData: []byte(e.From), ToData: []byte(e.To),
		}}, nil
	case ruleset.In:
		key := loadKey(e.Fields)
		if e.Mask != 0 {
			key = append(key, masked(e.Mask))
		}
		return append(key, &expr.Lookup{SourceRegister: registerWhole, SetName: e.Set, Invert: e.Not}), nil
	case ruleset.Map:
		return append(loadKey(e.Fields), &expr.Lookup{
			SourceRegister: registerWhole, SetName: e.Map, IsDestRegSet: true, DestRegister: registerZero,
		}), nil
	case ruleset.DNAT:
		return encodeDNAT(e), nil
	case ruleset.SNAT:
		b := e.Address.As4()
		return []expr.Any{
			&expr.Immediate{Register: registerWhole, Data: b[:]},
			&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: registerWhole, FullyRandom: true},
		}, nil
	case ruleset.Masquerade:
		return []expr.Any{&expr.Masq{FullyRandom: true}}, nil
	case ruleset.SetMark:
		return []expr.Any{
			load(ruleset.CtMark, registerWhole),
			&expr.Bitwise{
				SourceRegister: registerWhole, DestRegister: registerWhole, Len: 4,
				Mask: word(e.Keep &^ e.Or), Xor: word(e.Or),
			},
			&expr.Ct{Key: expr.CtKeyMARK, Register: registerWhole, SourceRegister: true},
		}, nil
	case ruleset.Count:
		return []expr.Any{&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: e.Counter}}, nil
	case ruleset.Socket:
		return []expr.Any{
			&expr.Socket{Key: expr.SocketKeyTransparent, Register: registerWhole},
			&expr.Cmp{Op: expr.CmpOpLte, Register: registerWhole, Data: []byte{1}},
		}, nil
	case ruleset.Verdict:
		return []expr.Any{encodeVerdict(e)}, nil
	}
	return nil, fmt.Errorf("no encoding for %T", e)
}

func encodeMatch(m ruleset.Match) []expr.Any {
	out := []expr.Any{load(m.Field, registerWhole)}
	if m.Mask != 0 {
		out = append(out, masked(m.Mask))
	}
	op := expr.CmpOpEq
	if m.Not {
		op = expr.CmpOpNeq
	}
	return append(out, &expr.Cmp{Op: op, Register: registerWhole, Data: []byte(m.Value)})
}

func masked(mask uint32) expr.Any {
	return &expr.Bitwise{SourceRegister: registerWhole, DestRegister: registerWhole, Len: 4, Mask: word(mask), Xor: word(0)}
}

func encodeDNAT(d ruleset.DNAT) []expr.Any {
	nat := &expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: registerWhole}
	if d.WithPort {
		nat.RegProtoMin = registerPart + 1
	}
	return append(loadKey(d.Fields),
		&expr.Lookup{SourceRegister: registerWhole, SetName: d.Map, IsDestRegSet: true, DestRegister: registerWhole}, nat)
}

func encodeVerdict(v ruleset.Verdict) *expr.Verdict {
	kinds := map[ruleset.VerdictKind]expr.VerdictKind{
		ruleset.Accept: expr.VerdictAccept, ruleset.Drop: expr.VerdictDrop, ruleset.Return: expr.VerdictReturn,
		ruleset.Jump: expr.VerdictJump, ruleset.Goto: expr.VerdictGoto,
	}
	return &expr.Verdict{Kind: kinds[v.Kind], Chain: v.Chain}
}

// loadKey loads fields side by side, each into registers of its own.
func loadKey(fields []ruleset.Field) []expr.Any {
	if len(fields) == 1 {
		return []expr.Any{load(fields[0], registerWhole)}
	}
	var out []expr.Any
	register := uint32(registerPart)
	for _, f := range fields {
		out = append(out, load(f, register))
		register += uint32(f.Type().Size()+3) / 4
	}
	return out
}

// load reads a field into a register.
func load(f ruleset.Field, register uint32) expr.Any {
	payload := func(base expr.PayloadBase, offset uint32) expr.Any {
		return &expr.Payload{DestRegister: register, Base: base, Offset: offset, Len: uint32(f.Type().Size())}
	}
	meta := func(key expr.MetaKey) expr.Any { return &expr.Meta{Key: key, Register: register} }
	ct := func(key expr.CtKey, direction uint32) expr.Any {
		return &expr.Ct{Key: key, Register: register, Direction: direction}
	}
	const original, reply = 0, 1
	switch f {
	case ruleset.Iifname:
		return meta(expr.MetaKeyIIFNAME)
	case ruleset.Oifname:
		return meta(expr.MetaKeyOIFNAME)
	case ruleset.NfProto:
		return meta(expr.MetaKeyNFPROTO)
	case ruleset.L4Proto:
		return meta(expr.MetaKeyL4PROTO)
	case ruleset.EtherProtocol:
		return payload(expr.PayloadBaseLLHeader, 12)
	case ruleset.EtherSource:
		return payload(expr.PayloadBaseLLHeader, 6)
	case ruleset.Source:
		return payload(expr.PayloadBaseNetworkHeader, 12)
	case ruleset.Destination:
		return payload(expr.PayloadBaseNetworkHeader, 16)
	case ruleset.DestPort:
		return payload(expr.PayloadBaseTransportHeader, 2)
	case ruleset.CtState:
		return ct(expr.CtKeySTATE, original)
	case ruleset.CtStatus:
		return ct(expr.CtKeySTATUS, original)
	case ruleset.CtDirection:
		return ct(expr.CtKeyDIRECTION, original)
	case ruleset.CtProtocol:
		return ct(expr.CtKeyPROTOCOL, original)
	case ruleset.CtOriginator:
		return ct(expr.CtKeySRCIP, original)
	case ruleset.CtResponder:
		return ct(expr.CtKeySRCIP, reply)
	case ruleset.CtServicePort:
		return ct(expr.CtKeyPROTOSRC, reply)
	case ruleset.FibType:
		return &expr.Fib{Register: register, ResultADDRTYPE: true, FlagDADDR: true}
	}
	return ct(expr.CtKeyMARK, original)
}

func word(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

// encodeSet gives the library's form of a set, without its elements.
func encodeSet(table *nftables.Table, s *ruleset.Set) (*nftables.Set, error) {
	key, err := datatype(s.Key)
	if err != nil {
		return nil, fmt.Errorf("set %s: %w", s.Name, err)
	}
	set := &nftables.Set{
		Table: table, Name: s.Name, KeyType: key, Interval: s.Interval,
		Concatenation: len(s.Key) > 1, KeyByteOrder: byteOrder(s.Key[0]),
	}
	if s.Data == nil {
		return set, nil
	}
	set.IsMap = true
	if set.DataType, err = datatype(s.Data); err != nil {
		return nil, fmt.Errorf("map %s: %w", s.Name, err)
	}
	return set, nil
}

func datatype(types []ruleset.Type) (nftables.SetDatatype, error) {
	known := map[ruleset.Type]nftables.SetDatatype{
		ruleset.TypeAddr: nftables.TypeIPAddr, ruleset.TypeProto: nftables.TypeInetProto,
		ruleset.TypePort: nftables.TypeInetService, ruleset.TypeIfname: nftables.TypeIFName,
		ruleset.TypeMark: nftables.TypeMark, ruleset.TypeVerdict: nftables.TypeVerdict,
	}
	parts := make([]nftables.SetDatatype, len(types))
	for i, t := range types {
		part, there := known[t]
		if !there {
			return part, fmt.Errorf("type %s in a set has no encoding", t)
		}
		parts[i] = part
	}
	if len(parts) == 1 {
		return parts[0], nil
	}
	return nftables.ConcatSetType(parts...)
}

// byteOrder tells nft how to show a key; the kernel does not care.
func byteOrder(t ruleset.Type) binaryutil.ByteOrder {
	if t == ruleset.TypeIfname || t == ruleset.TypeMark {
		return binaryutil.NativeEndian
	}
	return binaryutil.BigEndian
}

// encodeElements gives the library's form of elements. A range in a set of one
// field is two elements for the kernel, its first and the first after it.
func encodeElements(s *ruleset.Set, elements []ruleset.Element) []nftables.SetElement {
	out := make([]nftables.SetElement, 0, len(elements))
	for _, e := range elements {
		encoded := nftables.SetElement{Key: []byte(e.From), Val: []byte(e.Data)}
		if s.Data != nil && s.Data[0] == ruleset.TypeVerdict {
			encoded.Val, encoded.VerdictData = nil, encodeVerdict(e.Verdict)
		}
		if s.Interval && len(s.Key) > 1 {
			encoded.KeyEnd = []byte(e.To)
		}
		out = append(out, encoded)
		if s.Interval && len(s.Key) == 1 {
			if end, there := after(e.To); there {
				out = append(out, nftables.SetElement{Key: end, IntervalEnd: true})
			}
		}
	}
	return out
}

// after is the value following v as a big-endian number; there is none after the
// last.
func after(v ruleset.Value) ([]byte, bool) {
	b := []byte(v)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]++
		if b[i] != 0 {
			return b, true
		}
	}
	return nil, false
}

// before is the opposite of after.
func before(v []byte) ruleset.Value {
	b := append([]byte(nil), v...)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]--
		if b[i] != 0xff {
			break
		}
	}
	return ruleset.Value(b)
}
