package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/network/ruleset"
)

// Generation is the kernel's count of transactions in this namespace. As long as
// it stands where our own last transaction left it, nobody else wrote.
func (c *Conn) Generation() (uint32, error) {
	gen, err := c.nft.GetGen()
	if err != nil {
		return 0, fmt.Errorf("read nftables generation: %w", err)
	}
	return gen.ID, nil
}

// Read reads a table back. An absent table is nil without an error.
func (c *Conn) Read(f ruleset.Family) (*ruleset.State, error) {
	table := &nftables.Table{Family: family(f), Name: c.table}
	_, err := c.nft.ListTableOfFamily(c.table, table.Family)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find table %s: %w", c.table, err)
	}
	state := &ruleset.State{}
	if err := c.readCounters(table, state); err != nil {
		return nil, err
	}
	if err := c.readSets(table, state); err != nil {
		return nil, err
	}
	if err := c.readChains(f, state); err != nil {
		return nil, err
	}
	if err := c.readRules(f, state); err != nil {
		return nil, err
	}
	return state, nil
}

func (c *Conn) readCounters(table *nftables.Table, state *ruleset.State) error {
	counters, err := c.counters(table)
	state.Counters = slices.Sorted(maps.Keys(counters))
	return err
}

// Reading is what a counter shows.
type Reading struct{ Packets, Bytes uint64 }

// Counters reads all named counters of a table. An absent table has none.
func (c *Conn) Counters(f ruleset.Family) (map[string]Reading, error) {
	return c.counters(&nftables.Table{Family: family(f), Name: c.table})
}

func (c *Conn) counters(table *nftables.Table) (map[string]Reading, error) {
	objects, err := c.nft.GetNamedObjects(table)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("read counters of %s: %w", table.Name, err)
	}
	readings := map[string]Reading{}
	for _, o := range objects {
		named, ok := o.(*nftables.NamedObj)
		if !ok {
			continue
		}
		if n, ok := named.Obj.(*expr.Counter); ok {
			readings[named.Name] = Reading{n.Packets, n.Bytes}
		}
	}
	return readings, nil
}

func (c *Conn) readSets(table *nftables.Table, state *ruleset.State) error {
	sets, err := c.nft.GetSets(table)
	if err != nil {
		return fmt.Errorf("list sets of %s: %w", table.Name, err)
	}
	for _, s := range sets {
		set, err := c.readSet(s)
		if err != nil {
			return err
		}
		state.Sets = append(state.Sets, set)
	}
	return nil
}

func (c *Conn) readSet(s *nftables.Set) (*ruleset.Set, error) {
	elements, err := c.nft.GetSetElements(s)
	if err != nil {
		return nil, fmt.Errorf("read set %s: %w", s.Name, err)
	}
	set := &ruleset.Set{Name: s.Name, Key: typesOf(s.KeyType), Interval: s.Interval}
	if s.IsMap {
		set.Data = typesOf(s.DataType)
	}
	if set.Elements, err = decodeElements(set, elements); err != nil {
		return nil, fmt.Errorf("decode set %s: %w", s.Name, err)
	}
	return set, nil
}

func typesOf(t nftables.SetDatatype) []ruleset.Type {
	var types []ruleset.Type
	for name := range strings.SplitSeq(t.Name, " . ") {
		types = append(types, ruleset.Type(name))
	}
	return types
}

func decodeElements(set *ruleset.Set, elements []nftables.SetElement) ([]ruleset.Element, error) {
	if set.Interval && len(set.Key) == 1 {
		return decodeRanges(elements), nil
	}
	out := make([]ruleset.Element, 0, len(elements))
	for _, e := range elements {
		decoded := ruleset.Element{From: ruleset.Value(e.Key), To: ruleset.Value(e.KeyEnd)}
		if set.Data != nil && set.Data[0] == ruleset.TypeVerdict {
			verdict, err := decodeVerdict(e.Val)
			if err != nil {
				return nil, err
			}
			decoded.Verdict = verdict
		} else {
			decoded.Data = ruleset.Value(e.Val)
		}
		out = append(out, decoded)
	}
	return out, nil
}

// decodeRanges joins the kernel's pairs of first and first-after to ranges.
func decodeRanges(elements []nftables.SetElement) []ruleset.Element {
	slices.SortFunc(elements, func(a, b nftables.SetElement) int { return strings.Compare(string(a.Key), string(b.Key)) })
	var out []ruleset.Element
	for _, e := range elements {
		if !e.IntervalEnd {
			out = append(out, ruleset.Element{From: ruleset.Value(e.Key), To: ruleset.Value(slices.Repeat([]byte{0xff}, len(e.Key)))})
			continue
		}
		if n := len(out); n > 0 {
			out[n-1].To = before(e.Key)
		}
	}
	return out
}

func decodeVerdict(raw []byte) (ruleset.Verdict, error) {
	decoder, err := netlink.NewAttributeDecoder(raw)
	if err != nil {
		return ruleset.Verdict{}, err
	}
	decoder.ByteOrder = binary.BigEndian
	var v ruleset.Verdict
	for decoder.Next() {
		switch decoder.Type() {
		case unix.NFTA_VERDICT_CODE:
			v.Kind = verdictKind(int32(decoder.Uint32()))
		case unix.NFTA_VERDICT_CHAIN:
			v.Chain = decoder.String()
		}
	}
	return v, decoder.Err()
}

func verdictKind(code int32) ruleset.VerdictKind {
	switch expr.VerdictKind(code) {
	case expr.VerdictAccept:
		return ruleset.Accept
	case expr.VerdictReturn:
		return ruleset.Return
	case expr.VerdictJump:
		return ruleset.Jump
	case expr.VerdictGoto:
		return ruleset.Goto
	}
	return ruleset.Drop
}

// ask sends a request about our table, narrowed by further attributes. With
// netlink.Dump it is answered with all there is, without with one object.
func (c *Conn) ask(f ruleset.Family, message int, flags netlink.HeaderFlags, attributes ...netlink.Attribute) ([]netlink.Message, error) {
	data, err := netlink.MarshalAttributes(attributes)
	if err != nil {
		return nil, err
	}
	header := []byte{byte(family(f)), unix.NFNETLINK_V0, 0, 0}
	return c.raw.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | message),
			Flags: netlink.Request | flags,
		},
		Data: append(header, data...),
	})
}

func (c *Conn) readChains(f ruleset.Family, state *ruleset.State) error {
	messages, err := c.ask(f, unix.NFT_MSG_GETCHAIN, netlink.Dump, text(unix.NFTA_CHAIN_TABLE, c.table))
	if err != nil {
		return fmt.Errorf("list chains of %s: %w", c.table, err)
	}
	for _, m := range messages {
		table, chain, err := decodeChain(f, m)
		if err != nil {
			return fmt.Errorf("decode a chain of %s: %w", c.table, err)
		}
		if table == c.table {
			state.Chains = append(state.Chains, chain)
		}
	}
	return nil
}

func decodeChain(f ruleset.Family, m netlink.Message) (table string, chain *ruleset.ChainState, err error) {
	decoder, err := netlink.NewAttributeDecoder(m.Data[4:])
	if err != nil {
		return "", nil, err
	}
	decoder.ByteOrder = binary.BigEndian
	chain = &ruleset.ChainState{}
	base := &ruleset.Base{}
	for decoder.Next() {
		switch decoder.Type() {
		case unix.NFTA_CHAIN_TABLE:
			table = decoder.String()
		case unix.NFTA_CHAIN_NAME:
			chain.Name = decoder.String()
		case unix.NFTA_CHAIN_TYPE:
			base.Type = decoder.String()
		case unix.NFTA_CHAIN_POLICY:
			base.Drop = decoder.Uint32() == uint32(nftables.ChainPolicyDrop)
		case unix.NFTA_CHAIN_HOOK:
			chain.Base = base
			decoder.Nested(func(hook *netlink.AttributeDecoder) error { return decodeHook(f, hook, base) })
		}
	}
	return table, chain, decoder.Err()
}

// hookDevices is NFTA_HOOK_DEVS, which the kernel sends beside the older
// NFTA_HOOK_DEV; x/sys does not have it.
const hookDevices = 4

func decodeHook(f ruleset.Family, hook *netlink.AttributeDecoder, base *ruleset.Base) error {
	hook.ByteOrder = binary.BigEndian
	for hook.Next() {
		switch hook.Type() {
		case unix.NFTA_HOOK_HOOKNUM:
			base.Hook = hookName(f, hook.Uint32())
		case unix.NFTA_HOOK_PRIORITY:
			base.Priority = int32(hook.Uint32())
		case unix.NFTA_HOOK_DEV:
			base.Device = hook.String()
		case hookDevices:
			hook.Nested(func(devices *netlink.AttributeDecoder) error {
				for devices.Next() {
					base.Device = devices.String()
				}
				return nil
			})
		}
	}
	return nil
}

func text(kind uint16, value string) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: []byte(value + "\x00")}
}

// readRules reads the rules of the whole table, or of what narrows it.
func (c *Conn) readRules(f ruleset.Family, state *ruleset.State, narrow ...netlink.Attribute) error {
	attributes := append([]netlink.Attribute{text(unix.NFTA_RULE_TABLE, c.table)}, narrow...)
	messages, err := c.ask(f, unix.NFT_MSG_GETRULE, netlink.Dump, attributes...)
	if err != nil {
		return fmt.Errorf("list rules of %s: %w", c.table, err)
	}
	chains := make(map[string]*ruleset.ChainState, len(state.Chains))
	for _, chain := range state.Chains {
		chains[chain.Name] = chain
	}
	for _, m := range messages {
		table, name, mark, err := decodeRule(m)
		if err != nil {
			return fmt.Errorf("decode a rule of %s: %w", c.table, err)
		}
		if chain := chains[name]; table == c.table && chain != nil {
			chain.Rules = append(chain.Rules, mark)
		}
	}
	return nil
}

func decodeRule(m netlink.Message) (table, chain string, mark ruleset.RuleMark, err error) {
	decoder, err := netlink.NewAttributeDecoder(m.Data[4:])
	if err != nil {
		return "", "", mark, err
	}
	for decoder.Next() {
		switch decoder.Type() {
		case unix.NFTA_RULE_TABLE:
			table = decoder.String()
		case unix.NFTA_RULE_CHAIN:
			chain = decoder.String()
		case unix.NFTA_RULE_USERDATA:
			text, _ := userdata.GetString(decoder.Bytes(), userdata.TypeComment)
			if at := strings.LastIndexByte(text, '#'); at >= 0 {
				mark = ruleset.RuleMark{Digest: text[at+1:], Comment: strings.TrimSuffix(text[:at], " ")}
			}
		}
	}
	return table, chain, mark, decoder.Err()
}
