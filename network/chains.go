package network

import (
	"net/netip"
	"slices"

	"github.com/gpuhost/gpuhost/network/policy"
	"github.com/gpuhost/gpuhost/network/ruleset"
)

// The chains and sets of a router namespace that are there whatever it holds.
const (
	generationChain = "generation"
	refuseChain     = "refuse"
	forwardChain    = "forward"
	deliverChain    = "deliver"
	protectChain    = "protect"
	servicesChain   = "services"

	lanSuffix = "_lan" // of the chain that stamps intranet flows, and says which epoch

	fromMap     = "from"     // link a packet comes from → its endpoint's egress chain
	toMap       = "to"       // link a packet leaves by → its endpoint's ingress chain
	servicesMap = "services" // links whose instances may ask the VPC's services
	publishMap  = "publish"  // published protocol and port → endpoint and port
	intranetSet = "intranet4"
	protectSet  = "protected"
	insideSet   = "inside" // the VPC's own network

	spoofCounter     = "spoofed"
	refusedCounter   = "refused"
	invalidCounter   = "invalid"
	protectedCounter = "protected"
)

// Numbers of the kernel's interface that rules compare with.
const (
	etherIPv4     = 0x0800
	familyIPv4    = 2
	protoTCP      = 6
	protoUDP      = 17
	portDNS       = 53
	portVXLAN     = 4789
	stateInvalid  = 1
	statusDNAT    = 1 << 5
	dirOriginal   = 0
	dirReply      = 1
	fibLocal      = 2
	guardPriority = -500
)

func fixedCounters() []string { return []string{refusedCounter, invalidCounter, protectedCounter} }

func verdict(kind ruleset.VerdictKind) ruleset.Verdict { return ruleset.Verdict{Kind: kind} }
func jump(chain string) ruleset.Verdict                { return ruleset.Verdict{Kind: ruleset.Jump, Chain: chain} }
func proceed(chain string) ruleset.Verdict             { return ruleset.Verdict{Kind: ruleset.Goto, Chain: chain} }
func count(counter string) ruleset.Count               { return ruleset.Count{Counter: counter} }

func equals(field ruleset.Field, value ruleset.Value) ruleset.Match {
	return ruleset.Match{Field: field, Value: value}
}

func direction(d uint8) ruleset.Match { return equals(ruleset.CtDirection, ruleset.Byte(d)) }

func base(kind, hook string, priority int32, drop bool) *ruleset.Base {
	return &ruleset.Base{Type: kind, Hook: hook, Priority: priority, Drop: drop}
}

// fixedChains are the same in every VPC: they say in which order what is asked.
func fixedChains() []*ruleset.Chain {
	drop, accept := verdict(ruleset.Drop), verdict(ruleset.Accept)
	key := []ruleset.Field{ruleset.L4Proto, ruleset.DestPort}
	return []*ruleset.Chain{
		{Name: refuseChain, Rules: []ruleset.Rule{ruleset.Do(count(refusedCounter), drop)}},
		{Name: deliverChain, Rules: []ruleset.Rule{ruleset.Do(ruleset.Map{Fields: []ruleset.Field{ruleset.Oifname}, Map: toMap})}},
		protect(),
		services(),
		forward(),
		{Name: "input", Base: base("filter", "input", 0, true), Rules: []ruleset.Rule{
			ruleset.Do(equals(ruleset.Iifname, ruleset.Ifname("lo")), accept),
			ruleset.Do(ruleset.Map{Fields: []ruleset.Field{ruleset.Iifname}, Map: servicesMap}),
		}},
		{Name: "nat_pre", Base: base("nat", "prerouting", -100, false), Rules: []ruleset.Rule{
			ruleset.Do(equals(ruleset.Iifname, ruleset.Ifname(UplinkName)),
				ruleset.DNAT{Fields: key, Map: publishMap, WithPort: true}),
		}},
	}
}

// forward decides about every packet of a tenant. What comes from or goes to a
// link that is in no map meets the chain's policy: drop.
//
// An address of the VPC without a link is routed to the uplink as any other is. What
// is for it must not leave there, where somebody else may have that address: neither
// from a tenant nor by a published port. Answers of published ports do leave, to
// clients outside that have such an address.
func forward() *ruleset.Chain {
	drop := verdict(ruleset.Drop)
	up := ruleset.Ifname(UplinkName)
	untranslated := ruleset.Match{Field: ruleset.CtStatus, Mask: statusDNAT, Value: ruleset.Word(0)}
	return &ruleset.Chain{Name: forwardChain, Base: base("filter", "forward", 0, true), Rules: []ruleset.Rule{
		ruleset.Do(ruleset.Match{Field: ruleset.NfProto, Not: true, Value: ruleset.Byte(familyIPv4)}, drop),
		ruleset.Do(ruleset.Match{Field: ruleset.CtState, Mask: stateInvalid, Not: true, Value: ruleset.Word(0)}, count(invalidCounter), drop),
		ruleset.Do(equals(ruleset.Iifname, up), equals(ruleset.Oifname, up), proceed(refuseChain)),
		ruleset.Do(equals(ruleset.Oifname, up), ruleset.In{Fields: []ruleset.Field{ruleset.Destination}, Set: insideSet},
			untranslated, proceed(refuseChain)),
		ruleset.Do(equals(ruleset.Oifname, up), direction(dirOriginal), jump(protectChain)),
		ruleset.Do(equals(ruleset.Iifname, up), direction(dirOriginal), untranslated, proceed(refuseChain)),
		ruleset.Do(ruleset.Map{Fields: []ruleset.Field{ruleset.Iifname}, Map: fromMap}),
	}}
}

// protect keeps what a tenant originates away from the operator. Replies do not
// come here: an operator may use a published port.
func protect() *ruleset.Chain {
	drop := verdict(ruleset.Drop)
	return &ruleset.Chain{Name: protectChain, Rules: []ruleset.Rule{
		ruleset.Do(ruleset.In{Fields: []ruleset.Field{ruleset.Destination}, Set: protectSet}, count(protectedCounter), drop),
		ruleset.Do(equals(ruleset.L4Proto, ruleset.Proto(protoUDP)), equals(ruleset.DestPort, ruleset.Port(portVXLAN)), count(protectedCounter), drop),
	}}
}

// services lets instances ask the VPC's resolver.
func services() *ruleset.Chain {
	ask := func(proto uint8) ruleset.Rule {
		return ruleset.Do(equals(ruleset.Destination, ruleset.Addr(ServiceAddress())),
			equals(ruleset.L4Proto, ruleset.Proto(proto)), equals(ruleset.DestPort, ruleset.Port(portDNS)), verdict(ruleset.Accept))
	}
	return &ruleset.Chain{Name: servicesChain, Rules: []ruleset.Rule{ask(protoUDP), ask(protoTCP)}}
}

// snatChain hides the tenant's addresses behind the router's transit address.
func snatChain(router netip.Addr) *ruleset.Chain {
	return &ruleset.Chain{Name: "nat_post", Base: base("nat", "postrouting", 100, false), Rules: []ruleset.Rule{
		ruleset.Do(equals(ruleset.Oifname, ruleset.Ifname(UplinkName)), ruleset.SNAT{Address: router}),
	}}
}

// markChain says which version is loaded. Nothing jumps to it, and its rule has
// no effect; see compilePolicy for why it has no verdict either.
func markChain(marks Marks) *ruleset.Chain {
	return &ruleset.Chain{Name: generationChain, Rules: []ruleset.Rule{
		{Exprs: []ruleset.Expr{equals(ruleset.CtMark, ruleset.Word(0))}, Comment: marks.comment()},
	}}
}

// compilePolicy makes the chains of one direction of one list of groups:
//
//	in_P ── epoch current? ──────────────────────────▶ return
//	  └─▶ in_P_rules: first match, drop or return
//	        └─▶ in_P_lan or in_P_net: stamp ─▶ return
//
// When a rule adds or takes a way to another chain, the kernel walks the whole
// table to look for loops: 6 ms at 100,000 elements. So what a changed policy
// changes has no such way: the present epoch is an element of a set, boxes hold
// plain verdicts, and the stamping chains, which alone are filled anew, hold
// neither a lookup nor a verdict.
func compilePolicy(s side, name string, stamp Stamp, program policy.Program, before compiledPolicy) compiledPolicy {
	current := tag(stamp.Epoch)
	epoch := &ruleset.Set{
		Name: name + "_epoch", Key: []ruleset.Type{ruleset.TypeMark},
		Elements: []ruleset.Element{{From: ruleset.Word(current << s.shift)}},
	}
	rules, sets := programRules(s, name, program, before)
	lan, net := name+lanSuffix, name+"_net"
	intranet := ruleset.In{Fields: []ruleset.Field{s.remote}, Set: intranetSet}
	return compiledPolicy{
		stamp: stamp, program: program,
		sets: append(sets, epoch),
		chains: []*ruleset.Chain{
			{Name: name, Rules: []ruleset.Rule{
				ruleset.Do(ruleset.In{Fields: []ruleset.Field{ruleset.CtMark}, Mask: epochBits << s.shift, Set: epoch.Name}, verdict(ruleset.Return)),
				ruleset.Do(jump(name + "_rules")),
				ruleset.Do(intranet, proceed(lan)),
				ruleset.Do(proceed(net)),
			}},
			{Name: name + "_rules", Rules: rules},
			{Name: lan, Rules: []ruleset.Rule{{Exprs: []ruleset.Expr{s.stamp(current)}, Comment: stamp.comment()}}},
			{Name: net, Rules: []ruleset.Rule{ruleset.Do(s.stamp(classBit | current))}},
		},
	}
}

// programRules makes the lookups of a program, in its order. They end a packet
// that is dropped and return for one that is accepted. Sets of segments that are as
// before are those of before.
func programRules(s side, name string, program policy.Program, before compiledPolicy) ([]ruleset.Rule, []*ruleset.Set) {
	var rules []ruleset.Rule
	var sets []*ruleset.Set
	for i, segment := range program {
		if segment.Group != nil {
			rules = append(rules, groupRules(s, *segment.Group)...)
			continue
		}
		set := before.boxSet(i, segment)
		if set == nil {
			set = boxSet(name, i, segment.Boxes)
		}
		sets = append(sets, set)
		rules = append(rules, ruleset.Do(ruleset.Map{
			Fields: []ruleset.Field{s.remote, ruleset.CtProtocol, ruleset.CtServicePort}, Map: set.Name,
		}))
	}
	return append(rules, ruleset.Do(proceed(refuseChain))), sets
}

func outcome(v policy.Verdict) ruleset.Verdict {
	if v == policy.Accept {
		return verdict(ruleset.Return)
	}
	return verdict(ruleset.Drop)
}

// groupRules is a rule that names a group: a lookup in the group's own set, once
// for each range of ports.
func groupRules(s side, rule policy.Rule) []ruleset.Rule {
	var rules []ruleset.Rule
	for _, ports := range rule.Ports {
		exprs := []ruleset.Expr{ruleset.In{Fields: []ruleset.Field{s.remote}, Set: groupSet(rule.Group)}}
		if rule.Protocols.From == rule.Protocols.To {
			exprs = append(exprs, equals(ruleset.CtProtocol, ruleset.Proto(rule.Protocols.From)))
		}
		if ports != (policy.Ports{From: 0, To: 65535}) {
			exprs = append(exprs, ruleset.InRange{Field: ruleset.CtServicePort, From: ruleset.Port(ports.From), To: ruleset.Port(ports.To)})
		}
		rules = append(rules, ruleset.Do(append(exprs, outcome(rule.Verdict))...))
	}
	return rules
}

// endpointChains are an instance's own. They hold no rule of its groups, so that
// a changed policy does not touch them, and they count every packet let through,
// the one that was stamped just now too.
//
//	from the link:  from_X ─▶ policy ─▶ count ─▶ deliver
//	to the link:      to_X ─▶ policy ─▶ count ─▶ accept
//
// The policy asked is the one of the side that X was when the connection began.
func endpointChains(e Endpoint) []*ruleset.Chain {
	key := listKey(e.Groups)
	pass := func(name string, s side, d Direction, end ruleset.Verdict) *ruleset.Chain {
		return &ruleset.Chain{Name: name, Rules: []ruleset.Rule{
			ruleset.Do(jump(chainOf(s, key))),
			ruleset.Do(s.match(classBit, 0), count(counterName(e.Instance, Intranet, d)), end),
			ruleset.Do(count(counterName(e.Instance, Internet, d)), end),
		}}
	}
	first := func(c *ruleset.Chain, answering string) *ruleset.Chain {
		c.Rules = slices.Insert(c.Rules, 0, ruleset.Do(direction(dirReply), proceed(answering)))
		return c
	}
	from, to := "from_"+string(e.Instance), "to_"+string(e.Instance)
	deliver, accept := proceed(deliverChain), verdict(ruleset.Accept)
	return []*ruleset.Chain{
		pass(from+"_r", inbound(), Egress, deliver),
		first(pass(from, outbound(), Egress, deliver), from+"_r"),
		pass(to+"_r", outbound(), Ingress, accept),
		first(pass(to, inbound(), Ingress, accept), to+"_r"),
	}
}
