package policy_test

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network/policy"
)

func TestParse(t *testing.T) {
	ok := spec.Rule{Action: "accept", Protocol: "tcp", Ports: "22,80,8000-9000", Remote: "10.1.0.0/16"}
	with := func(change func(*spec.Rule)) spec.Rule { r := ok; change(&r); return r }
	tests := []struct {
		name string
		rule spec.Rule
		want string
		kind fault.Kind
	}{
		{"ports and network", ok, "accept proto 6-6 ports 22-22 80-80 8000-9000 0a010000-0a01ffff", ""},
		{"host bits are masked", with(func(r *spec.Rule) { r.Remote = "10.1.2.3/16" }), "accept proto 6-6 ports 22-22 80-80 8000-9000 0a010000-0a01ffff", ""},
		{"ports that overlap, touch, are out of order", with(func(r *spec.Rule) { r.Ports = "90-95,80-85,86,83-88,7" }), "accept proto 6-6 ports 7-7 80-88 90-95 0a010000-0a01ffff", ""},
		{"whole internet", with(func(r *spec.Rule) { r.Remote, r.Ports = "0.0.0.0/0", "" }), "accept proto 6-6 ports 0-65535 00000000-ffffffff", ""},
		{"any", spec.Rule{Action: "drop", Protocol: "all", Remote: "any"}, "drop proto 0-255 ports 0-65535 00000000-ffffffff", ""},
		{"range", spec.Rule{Action: "drop", Protocol: "gre", Remote: "10.0.0.5-10.0.0.9"}, "drop proto 47-47 ports 0-65535 0a000005-0a000009", ""},
		{"one address", spec.Rule{Action: "accept", Protocol: "icmp", Remote: "10.0.0.5"}, "accept proto 1-1 ports 0-65535 0a000005-0a000005", ""},
		{"group", spec.Rule{Action: "accept", Protocol: "udp", Ports: "53", Remote: "sg:web"}, "accept proto 17-17 ports 53-53 sg:web", ""},
		{"no action", with(func(r *spec.Rule) { r.Action = "" }), "", fault.Invalid},
		{"no protocol", with(func(r *spec.Rule) { r.Protocol = "" }), "", fault.Invalid},
		{"no remote", with(func(r *spec.Rule) { r.Remote = "" }), "", fault.Invalid},
		{"port too high", with(func(r *spec.Rule) { r.Ports = "65536" }), "", fault.Invalid},
		{"backward ports", with(func(r *spec.Rule) { r.Ports = "9-8" }), "", fault.Invalid},
		{"empty port", with(func(r *spec.Rule) { r.Ports = "22,," }), "", fault.Invalid},
		{"ports of icmp", with(func(r *spec.Rule) { r.Protocol = "icmp" }), "", fault.Invalid},
		{"source ports", with(func(r *spec.Rule) { r.Source = "1" }), "", fault.Invalid},
		{"backward range", with(func(r *spec.Rule) { r.Remote = "10.0.0.9-10.0.0.5" }), "", fault.Invalid},
		{"nameless group", with(func(r *spec.Rule) { r.Remote = "sg:" }), "", fault.Invalid},
		{"v6 network", with(func(r *spec.Rule) { r.Remote = "2001:db8::/32" }), "", fault.Unsupported},
		{"v6 address", with(func(r *spec.Rule) { r.Remote = "2001:db8::1" }), "", fault.Unsupported},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rules, err := policy.Parse([]spec.Rule{tt.rule})
			if fault.KindOf(err) != tt.kind {
				t.Fatalf("Parse: %v, want kind %q", err, tt.kind)
			}
			if err == nil && rules[0].String() != tt.want {
				t.Errorf("got  %s\nwant %s", rules[0], tt.want)
			}
		})
	}
}

// The interesting coordinates are few, so that random rules meet each other's edges.
var (
	addresses = rapid.Custom(func(t *rapid.T) uint32 {
		return rapid.SampledFrom([]uint32{0, 1, 0x0a000000, 0x0a000001, 0x0a000005, 0x0a0000ff, 0x0a010000, 0xc0a80000, 0xfffffffe, 0xffffffff}).Draw(t, "address")
	})
	ports     = rapid.SampledFrom([]uint16{0, 1, 22, 80, 443, 8000, 9000, 65534, 65535})
	protocols = rapid.SampledFrom([]uint8{0, 1, 6, 17, 47, 132, 255})
	groups    = rapid.SampledFrom([]string{"", "", "", "web", "db"})
)

func drawRule(t *rapid.T) policy.Rule {
	a, b := addresses.Draw(t, "a"), addresses.Draw(t, "b")
	p, q := protocols.Draw(t, "p"), protocols.Draw(t, "q")
	rule := policy.Rule{
		Verdict:   policy.Verdict(rapid.IntRange(0, 1).Draw(t, "verdict")),
		Protocols: policy.Protocols{From: min(p, q), To: max(p, q)},
		Remote:    policy.Addresses{From: min(a, b), To: max(a, b)},
		Group:     groups.Draw(t, "group"),
	}
	for range rapid.IntRange(1, 3).Draw(t, "port ranges") {
		x, y := ports.Draw(t, "x"), ports.Draw(t, "y")
		rule.Ports = append(rule.Ports, policy.Ports{From: min(x, y), To: max(x, y)})
	}
	return rule
}

func members(group string, a netip.Addr) bool {
	odd := a.As4()[3]%2 == 1
	return (group == "web") == odd
}

func TestCompiledEqualsNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var rules []policy.Rule
		var programs []policy.Program
		for range rapid.IntRange(1, 3).Draw(t, "groups") {
			group := rapid.SliceOfN(rapid.Custom(drawRule), 0, 20).Draw(t, "rules")
			program, err := policy.Compile(group)
			if err != nil {
				t.Fatal(err)
			}
			rules, programs = append(rules, group...), append(programs, program)
		}
		program, err := policy.Join(programs...)
		if err != nil {
			t.Fatal(err)
		}
		checkDisjoint(t, program)
		for range 60 {
			p := policy.Packet{
				Remote:   policy.Address(addresses.Draw(t, "remote") + uint32(rapid.IntRange(-1, 1).Draw(t, "step"))),
				Protocol: protocols.Draw(t, "protocol"),
				Port:     ports.Draw(t, "port") + uint16(rapid.IntRange(-1, 1).Draw(t, "beside")),
			}
			naive, compiled := policy.Evaluate(rules, members, p), program.Evaluate(members, p)
			if naive != compiled {
				t.Fatalf("packet %+v: naive %s, compiled %s", p, naive, compiled)
			}
		}
	})
}

func checkDisjoint(t *rapid.T, program policy.Program) {
	for _, s := range program {
		for i, a := range s.Boxes {
			for _, b := range s.Boxes[:i] {
				apart := a.Remote.To < b.Remote.From || b.Remote.To < a.Remote.From ||
					a.Ports.To < b.Ports.From || b.Ports.To < a.Ports.From ||
					a.Protocols.To < b.Protocols.From || b.Protocols.To < a.Protocols.From
				if !apart {
					t.Fatalf("boxes overlap:\n%+v\n%+v", a, b)
				}
			}
		}
	}
}

// What is dropped at the end of all is not looked up: neither where nothing is
// written nor where a group drops, unless a later one accepts.
func TestWhatIsDroppedAtTheEndIsNotLookedUp(t *testing.T) {
	all := policy.Rule{Protocols: policy.Protocols{To: 255}, Ports: []policy.Ports{{To: 65535}}, Remote: policy.Addresses{To: 1<<32 - 1}}
	accept := all
	accept.Verdict = policy.Accept
	for _, row := range []struct {
		name    string
		groups  [][]policy.Rule
		lookups int
	}{
		{"nothing", [][]policy.Rule{nil}, 0},
		{"drop", [][]policy.Rule{{all}, {all}}, 0},
		{"drop, then accept", [][]policy.Rule{{all}, {accept}}, 2},
		{"accept, then drop", [][]policy.Rule{{accept}, {all}}, 1},
	} {
		var programs []policy.Program
		for _, rules := range row.groups {
			program, err := policy.Compile(rules)
			if err != nil {
				t.Fatal(err)
			}
			programs = append(programs, program)
		}
		before := len(slices.Concat(programs...))
		if got, err := policy.Join(programs...); len(got) != row.lookups || err != nil {
			t.Errorf("%s: %d lookups (%v), want %d", row.name, len(got), err, row.lookups)
		}
		if after := len(slices.Concat(programs...)); after != before || len(programs[0]) > 0 && len(programs[0][0].Boxes) != 1 {
			t.Errorf("%s: joining changed what it joined", row.name)
		}
	}
}

func TestGroupsBoundTogetherAreBounded(t *testing.T) {
	half := policy.Program{{Boxes: make([]policy.Box, policy.MaxEntries/2)}}
	if _, err := policy.Join(half, half); err != nil {
		t.Errorf("as many as there may be: %v", err)
	}
	if _, err := policy.Join(half, half, policy.Program{{Boxes: make([]policy.Box, 1)}}); fault.KindOf(err) != fault.Exhausted {
		t.Errorf("one more: %v", err)
	}
}

// Rules of one list are bounded, whatever they are made of: nobody's rules occupy
// the host for longer than it takes to find that out.
func TestCompileIsBounded(t *testing.T) {
	tcp := policy.Protocols{From: 6, To: 6}
	many := make([]policy.Ports, 64)
	for i := range many {
		many[i] = policy.Ports{From: uint16(2 * i), To: uint16(2 * i)}
	}
	at := func(i int) policy.Addresses { return policy.Addresses{From: uint32(2 * i), To: uint32(2 * i)} }
	apart := func(i int) policy.Rule { return policy.Rule{Protocols: tcp, Ports: many[:1], Remote: at(i)} }
	crossing := func(i int) policy.Rule { // one port of all, or all ports of one
		if i%2 == 0 {
			return policy.Rule{Protocols: tcp, Ports: []policy.Ports{{From: uint16(i), To: uint16(i)}}, Remote: policy.Addresses{To: 1<<32 - 1}}
		}
		return policy.Rule{Protocols: tcp, Ports: []policy.Ports{{To: 65535}}, Remote: at(i)}
	}
	tests := []struct {
		name string
		n    int
		rule func(i int) policy.Rule
		kind fault.Kind
	}{
		{"the most there may be", policy.MaxEntries, apart, ""},
		{"one more", policy.MaxEntries + 1, apart, fault.Exhausted},
		{"few rules that cross each other", 600, crossing, fault.Exhausted},
		{"rules that name a group", policy.MaxEntries/64 + 1, func(int) policy.Rule { return policy.Rule{Protocols: tcp, Ports: many, Group: "web"} }, fault.Exhausted},
		{"five groups of 100 rules of 64 ports", 500, func(i int) policy.Rule { return policy.Rule{Protocols: tcp, Ports: many, Remote: at(i)} }, fault.Exhausted},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rules := make([]policy.Rule, tt.n)
			for i := range rules {
				rules[i] = tt.rule(i)
			}
			if _, err := policy.Compile(rules); fault.KindOf(err) != tt.kind {
				t.Errorf("Compile: %v, want kind %q", err, tt.kind)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add("accept", "tcp", "22,80,8000-9000", "10.0.0.0/8")
	f.Add("drop", "all", "", "sg:web")
	f.Add("accept", "udp", "0-65535", "10.0.0.1-10.0.0.9")
	f.Fuzz(func(t *testing.T, action, protocol, ports, remote string) {
		rules, err := policy.Parse([]spec.Rule{{Action: action, Protocol: protocol, Ports: ports, Remote: remote}})
		if err != nil {
			if kind := fault.KindOf(err); kind != fault.Invalid && kind != fault.Unsupported {
				t.Fatalf("error of kind %s: %v", kind, err)
			}
			return
		}
		if _, err := policy.Compile(rules); err != nil {
			t.Fatal(err)
		}
	})
}
