package nft_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/network/netns"
	"github.com/gpuhost/gpuhost/network/nft"
	"github.com/gpuhost/gpuhost/network/ruleset"
	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

func TestMain(m *testing.M) { hosttest.Main(m) }

const name = "gpuhost_test"

func open(t *testing.T) (*nft.Conn, *os.File) {
	t.Helper()
	hosttest.Need(t, "nft")
	path := filepath.Join(t.TempDir(), "ns")
	if err := netns.Create(path); err != nil {
		t.Fatal(err)
	}
	f, err := netns.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	low, err := nft.Reserve(2)
	if err != nil {
		t.Fatal(err)
	}
	c, err := nft.Open(low, f, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		low.Close()
		f.Close()
		if err := netns.Delete(path); err != nil {
			t.Error(err)
		}
	})
	return c, f
}

func addr(text string) ruleset.Value { return ruleset.Addr(netip.MustParseAddr(text)) }

// everything has each kind of expression, set and chain there is.
func everything() *ruleset.Table {
	verdict := func(k ruleset.VerdictKind, chain string) ruleset.Verdict {
		return ruleset.Verdict{Kind: k, Chain: chain}
	}
	key := []ruleset.Field{ruleset.L4Proto, ruleset.DestPort}
	return &ruleset.Table{
		Family: ruleset.INet, Name: name, Counters: []string{"hits"},
		Sets: []*ruleset.Set{
			{Name: "ranges", Key: []ruleset.Type{ruleset.TypeAddr}, Interval: true, Elements: []ruleset.Element{
				{From: addr("0.0.0.0"), To: addr("0.0.0.255")}, {From: addr("10.0.0.0"), To: addr("10.0.0.0")}, {From: addr("224.0.0.0"), To: addr("255.255.255.255")}}},
			{Name: "hash", Key: []ruleset.Type{ruleset.TypeAddr}, Elements: []ruleset.Element{{From: addr("10.1.1.1")}}},
			{Name: "marks", Key: []ruleset.Type{ruleset.TypeMark}, Elements: []ruleset.Element{{From: ruleset.Word(7)}}},
			{Name: "links", Key: []ruleset.Type{ruleset.TypeIfname}, Data: []ruleset.Type{ruleset.TypeVerdict}, Elements: []ruleset.Element{
				{From: ruleset.Ifname("i-a"), Verdict: verdict(ruleset.Goto, "sub")}, {From: ruleset.Ifname("up0"), Verdict: verdict(ruleset.Accept, "")}}},
			{Name: "boxes", Key: []ruleset.Type{ruleset.TypeAddr, ruleset.TypeProto, ruleset.TypePort}, Data: []ruleset.Type{ruleset.TypeVerdict}, Interval: true,
				Elements: []ruleset.Element{
					{From: ruleset.Concat(addr("10.0.0.0"), ruleset.Proto(6), ruleset.Port(1)), To: ruleset.Concat(addr("10.0.0.9"), ruleset.Proto(6), ruleset.Port(22)), Verdict: verdict(ruleset.Return, "")},
					{From: ruleset.Concat(addr("10.0.0.10"), ruleset.Proto(0), ruleset.Port(0)), To: ruleset.Concat(addr("255.255.255.255"), ruleset.Proto(255), ruleset.Port(65535)), Verdict: verdict(ruleset.Drop, "")}}},
			{Name: "ports", Key: []ruleset.Type{ruleset.TypeProto, ruleset.TypePort}, Data: []ruleset.Type{ruleset.TypeAddr, ruleset.TypePort}, Elements: []ruleset.Element{
				{From: ruleset.Concat(ruleset.Proto(6), ruleset.Port(80)), Data: ruleset.Concat(addr("10.0.0.1"), ruleset.Port(8080))}}},
			{Name: "hosts", Key: []ruleset.Type{ruleset.TypeProto, ruleset.TypePort}, Data: []ruleset.Type{ruleset.TypeAddr}},
		},
		Chains: []*ruleset.Chain{
			{Name: "sub", Rules: []ruleset.Rule{
				ruleset.Do(ruleset.In{Fields: []ruleset.Field{ruleset.CtOriginator}, Set: "ranges"}, ruleset.SetMark{Keep: 0xffff0000, Or: 0x8001}, verdict(ruleset.Return, "")),
				ruleset.Do(ruleset.In{Fields: []ruleset.Field{ruleset.CtMark}, Mask: 0x7fff, Set: "marks"}, verdict(ruleset.Return, "")),
				ruleset.Do(ruleset.Map{Fields: []ruleset.Field{ruleset.CtResponder, ruleset.CtProtocol, ruleset.CtServicePort}, Map: "boxes"}),
				ruleset.Do(ruleset.In{Fields: []ruleset.Field{ruleset.Source}, Set: "hash", Not: true}, ruleset.InRange{Field: ruleset.CtServicePort, From: ruleset.Port(1), To: ruleset.Port(9)}, ruleset.Count{Counter: "hits"}, verdict(ruleset.Drop, "")),
			}},
			{Name: "forward", Base: &ruleset.Base{Type: "filter", Hook: "forward", Drop: true}, Rules: []ruleset.Rule{
				ruleset.Do(ruleset.Match{Field: ruleset.CtState, Mask: 1, Not: true, Value: ruleset.Word(0)}, verdict(ruleset.Drop, "")),
				ruleset.Do(ruleset.Match{Field: ruleset.CtDirection, Value: ruleset.Byte(1)}, verdict(ruleset.Jump, "sub")),
				{Exprs: []ruleset.Expr{ruleset.Map{Fields: []ruleset.Field{ruleset.Iifname}, Map: "links"}}, Comment: "with a # in it"},
			}},
			{Name: "pre", Base: &ruleset.Base{Type: "nat", Hook: "prerouting", Priority: -100}, Rules: []ruleset.Rule{
				ruleset.Do(ruleset.Socket{}, verdict(ruleset.Return, "")),
				ruleset.Do(ruleset.Match{Field: ruleset.FibType, Value: ruleset.Word(2)}, ruleset.DNAT{Fields: key, Map: "hosts"}),
				ruleset.Do(ruleset.DNAT{Fields: key, Map: "ports", WithPort: true}),
			}},
			{Name: "post", Base: &ruleset.Base{Type: "nat", Hook: "postrouting", Priority: 100}, Rules: []ruleset.Rule{
				ruleset.Do(ruleset.Match{Field: ruleset.Oifname, Value: ruleset.Ifname("up0")}, ruleset.SNAT{Address: netip.MustParseAddr("10.0.0.1")}),
				ruleset.Do(ruleset.Masquerade{}),
			}},
		},
	}
}

func guards() *ruleset.Table {
	return &ruleset.Table{Family: ruleset.Netdev, Name: name, Chains: []*ruleset.Chain{{
		Name: "guard", Base: &ruleset.Base{Type: "filter", Hook: "ingress", Priority: -500, Drop: true, Device: "lo"},
		Rules: []ruleset.Rule{ruleset.Do(
			ruleset.Match{Field: ruleset.EtherProtocol, Value: ruleset.EtherType(0x0800)},
			ruleset.Match{Field: ruleset.EtherSource, Value: ruleset.MAC(net.HardwareAddr{2, 0, 0, 0, 0, 1})},
			ruleset.Match{Field: ruleset.Source, Value: addr("10.0.0.1")},
			ruleset.Verdict{Kind: ruleset.Accept})},
	}}}
}

// What is written is read back: a diff with what the kernel says is empty.
func TestEverythingIsReadBack(t *testing.T) {
	c, f := open(t)
	for _, table := range []*ruleset.Table{everything(), guards()} {
		have, err := c.Read(table.Family)
		if err != nil || have != nil {
			t.Fatalf("Read of an absent table = %v, %v", have, err)
		}
		changes := ruleset.Diff(nil, table)
		if err := c.Apply(changes); err != nil {
			t.Fatal(err)
		}
		if have, err = c.Read(table.Family); err != nil {
			t.Fatal(err)
		}
		again := ruleset.Diff(have, table)
		if !again.Empty() {
			t.Errorf("the kernel's table differs from what was written:\n%s", strings.Join(again.Summary(), "\n"))
		}
	}
	var listing []byte
	err := netns.Do(f, func() (err error) { listing, err = exec.Command("nft", "list", "ruleset").CombinedOutput(); return err })
	if err != nil {
		t.Fatalf("the nft command cannot read it: %v\n%s", err, listing)
	}
	for _, want := range []string{
		"10.0.0.0-10.0.0.9 . tcp . 1-22 : return", "ct original ip saddr @ranges ct mark set ct mark & 0xffff8001 | 0x00008001 return",
		"dnat ip to meta l4proto . th dport map @ports", "tcp . 80 : 10.0.0.1 . 8080", `iifname vmap @links`, "masquerade fully-random",
	} {
		if !strings.Contains(string(listing), want) {
			t.Errorf("the nft command does not show %q:\n%s", want, listing)
		}
	}
}

// One change that the kernel refuses leaves all as it was.
func TestATransactionIsAllOrNothing(t *testing.T) {
	c, _ := open(t)
	table := everything()
	changes := ruleset.Diff(nil, table)
	changes.Fill[0].Rules = append(changes.Fill[0].Rules, ruleset.Do(ruleset.Verdict{Kind: ruleset.Jump, Chain: "nowhere"}))
	if err := c.Apply(changes); !errors.Is(err, unix.ENOENT) { // the kernel's own reason is kept
		t.Fatalf("a jump to nowhere: %v, want ENOENT", err)
	}
	if have, err := c.Read(ruleset.INet); err != nil || have != nil {
		t.Errorf("after a refused transaction: %v, %v", have, err)
	}
	bad := &ruleset.Changes{Table: &ruleset.Table{Family: ruleset.INet, Name: name}, NewTable: true,
		AddSets: []*ruleset.Set{{Name: "x", Key: []ruleset.Type{ruleset.TypeState}}}}
	if err := c.Apply(bad); err == nil {
		t.Fatal("a set of a type without an encoding is accepted")
	}
	if err := c.Apply(mustDiff(t, everything())); err != nil {
		t.Errorf("the refused changes hang over the next ones: %v", err)
	}
}

func mustDiff(t *testing.T, table *ruleset.Table) *ruleset.Changes {
	t.Helper()
	changes := ruleset.Diff(nil, table)
	return changes
}

// The library polls with select: a descriptor it cannot watch is refused, and a
// reserved one lets a late socket in.
func TestDescriptors(t *testing.T) {
	hosttest.Need(t)
	low, err := nft.Reserve(4)
	if err != nil {
		t.Fatal(err)
	}
	defer low.Close()
	var files []*os.File
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
		if f.Fd() > 1100 {
			break
		}
	}
	for i := range 10 { // more often than the reserve is deep
		c, err := nft.Open(low, nil, name)
		if err != nil {
			t.Fatalf("socket %d with low descriptors in reserve: %v", i+1, err)
		}
		if _, err := c.Read(ruleset.INet); err != nil {
			t.Error(err)
		}
		c.Close()
		f, err := os.Open(os.DevNull) // somebody takes the next number
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	low.Close()
	none, err := nft.Reserve(0)
	if err != nil {
		t.Fatal(err)
	}
	for f, err := os.Open(os.DevNull); ; f, err = os.Open(os.DevNull) { // those of the reserve
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
		if f.Fd() > 1100 {
			break
		}
	}
	if _, err := nft.Open(none, nil, name); !fault.Is(err, fault.Exhausted) {
		t.Errorf("without a reserve: %v, want exhausted", err)
	}
}

func TestForeignDropsAreNamed(t *testing.T) {
	conn, ns := open(t)
	found, err := conn.ForeignDrops()
	if err != nil || len(found) > 0 {
		t.Fatalf("an empty namespace: %v, %v", found, err)
	}
	for _, line := range []string{
		"add table ip filter",
		"add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }",
		"add chain ip filter INPUT { type filter hook input priority 0 ; policy drop ; }",
		"add table inet other",
		"add chain inet other open { type filter hook forward priority 0 ; policy accept ; }",
	} {
		nftIn(t, ns, line)
	}
	if found, err = conn.ForeignDrops(); err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 || found[0].String() != "ip filter FORWARD" || found[0].Hook != "forward" {
		t.Errorf("found %v, want the drop at forward alone", found)
	}
}

// nftIn runs one line of nft in a namespace: somebody else's work.
func nftIn(t *testing.T, ns *os.File, line string) {
	t.Helper()
	cmd := exec.Command("nsenter", "--net=/proc/self/fd/3", "nft", line)
	cmd.ExtraFiles = []*os.File{ns}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft %s: %v: %s", line, err, out)
	}
}
