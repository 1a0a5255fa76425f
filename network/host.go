package network

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network/ruleset"
)

// HostWant is what the host's own namespace should do for its VPCs.
type HostWant struct {
	VPCs []HostVPC `json:"vpcs"`
	// Protected are the operator's networks that no tenant may originate traffic to.
	Protected []netip.Prefix `json:"protected"`
	// Uplink is the device tenants leave the host by: AnyUplink for any, "" for those
	// of the host's default routes, any where it has none.
	Uplink string `json:"uplink,omitempty"`
	// Taken are ports, published or not, on which the host itself listens.
	Taken []spec.Publish `json:"taken,omitempty"`
}

// HostVPC is what the host needs to know of one VPC.
type HostVPC struct {
	UID     spec.UID       `json:"uid"`
	Transit Transit        `json:"transit"`
	Publish []spec.Publish `json:"publish,omitempty"`
}

// HostArgs are what load-host brings in force; a nil Table removes it.
type HostArgs struct {
	Changes []string `json:"changes"`
	// Opened is to be remembered before the table changes; see HostHave.
	Opened []string       `json:"opened,omitempty"`
	Owed   []Published    `json:"owed,omitempty"` // connections to forget after
	Table  *ruleset.Table `json:"-"`
}

// AnyUplink lets tenants leave the host by every device.
const AnyUplink = "any"

// uplinks are the devices that tenants may leave by; none is any.
func (w HostWant) uplinks(have HostHave) []string {
	switch w.Uplink {
	case "":
		return have.Uplinks
	case AnyUplink:
		return nil
	}
	return []string{w.Uplink}
}

const (
	uplinkSet     = "uplinks" // devices that tenants may leave by
	transitSet    = "transit" // the host's ends of all transit links
	routersSet    = "routers" // the routers' transit addresses
	takenSet      = "taken"   // protocols and ports on which the host itself listens
	openedSet     = "opened"  // devices that forward for tenants alone
	fromTenants   = "from_tenants"
	toTenants     = "to_tenants"
	tenantCounter = "tenant_refused"
)

// PlanHost makes the steps that bring the host to what is wanted; a nil want
// removes everything. No device forwards before the table that keeps its
// neighbours apart is in force, nor after that table is gone.
//
// What keeps tenants apart, from the host and from its networks comes first,
// together with the end of what is published no longer. It waits for nothing that
// somebody publishes.
func (p *Planner) PlanHost(want *HostWant, have HostHave) (plan.Plan, error) {
	if want == nil {
		return p.planNoHost(have), nil
	}
	load := HostArgs{Opened: have.ours(), Owed: have.Owed}
	whole := p.CompileHost(*want, have)
	load.Table = withdrawn(whole, have.Table)
	load.Changes = append(ruleset.Diff(have.Table, load.Table).Summary(), owing(have.Owed)...)
	if !slices.Equal(load.Opened, have.Opened) {
		load.Changes = append(load.Changes, "for tenants alone forward: "+strings.Join(load.Opened, " "))
	}
	var steps []plan.Step
	if len(load.Changes) > 0 {
		steps = append(steps, p.hostStep(VerbLoadHost, strings.Join(load.Changes, "; "), load))
	}
	if shut := have.shut(); len(shut) > 0 {
		steps = append(steps, p.hostStep(VerbForward, "tenants' traffic may cross them: "+strings.Join(shut, " "), ForwardArgs{Open: shut}, VerbLoadHost))
	}
	if changes := ruleset.Diff(load.Table.State(), whole).Summary(); len(changes) > 0 {
		publish := HostArgs{Changes: changes, Opened: load.Opened, Table: whole}
		steps = append(steps, p.hostStep(VerbPublish, strings.Join(changes, "; "), publish, VerbLoadHost))
	}
	return plan.Of(steps...), nil
}

// withdrawn is a table without the published ports that are not in force yet.
func withdrawn(whole *ruleset.Table, have *ruleset.State) *ruleset.Table {
	old := have.Set(publishMap)
	table := &ruleset.Table{Family: whole.Family, Name: whole.Name, Counters: whole.Counters, Sets: slices.Clone(whole.Sets), Chains: whole.Chains}
	for i, set := range table.Sets {
		if set.Name != publishMap {
			continue
		}
		kept := *set
		kept.Elements = slices.DeleteFunc(slices.Clone(set.Elements), func(e ruleset.Element) bool {
			return old == nil || !slices.Contains(old.Elements, e)
		})
		table.Sets[i] = &kept
	}
	return table
}

func (p *Planner) planNoHost(have HostHave) plan.Plan {
	const why = "no network is wanted on this host"
	var steps []plan.Step
	if closing := have.closing(); len(closing) > 0 {
		steps = append(steps, p.hostStep(VerbForward, why, ForwardArgs{Close: closing}))
	}
	if have.Table != nil || len(have.Opened) > 0 {
		steps = append(steps, p.hostStep(VerbLoadHost, why, HostArgs{}, VerbForward))
	}
	return plan.Of(steps...)
}

func (p *Planner) hostStep(verb, why string, args any, after ...string) plan.Step {
	object := strings.TrimPrefix(p.table, tablePrefix)
	needs := make([]plan.ID, len(after))
	for i, v := range after {
		needs[i] = plan.MakeID(plan.Network, v, object)
	}
	step := plan.NewStep(plan.Network, verb, object, why, args, needs...)
	step.Title = "this host"
	return step
}

// CompileHost makes the table of the host's own namespace: the one place where
// tenants' traffic meets the host's stack. Its policies accept, because the rest
// of the namespace is the operator's; everything about tenants is decided by the
// transit links' names.
//
// What comes from a device that forwards for tenants alone and is not theirs is
// dropped, wherever it would go: the kernel asks the device a packet comes from
// whether it forwards.
func (p *Planner) CompileHost(want HostWant, have HostHave) *ruleset.Table {
	uplinks := deviceSet(uplinkSet, want.uplinks(have))
	return &ruleset.Table{
		Family: ruleset.INet, Name: p.table,
		Counters: []string{tenantCounter, protectedCounter},
		Sets:     append(hostSets(want), deviceSet(openedSet, have.ours()), uplinks),
		Chains:   hostChains(len(uplinks.Elements) > 0, have.Sockets),
	}
}

func deviceSet(name string, devices []string) *ruleset.Set {
	set := &ruleset.Set{Name: name, Key: []ruleset.Type{ruleset.TypeIfname}}
	for _, device := range devices {
		set.Elements = append(set.Elements, ruleset.Element{From: ruleset.Ifname(device)})
	}
	return set
}

func hostSets(want HostWant) []*ruleset.Set {
	transit := &ruleset.Set{Name: transitSet, Key: []ruleset.Type{ruleset.TypeIfname}}
	routers := &ruleset.Set{Name: routersSet, Key: []ruleset.Type{ruleset.TypeAddr}}
	publish := &ruleset.Set{
		Name: publishMap, Key: []ruleset.Type{ruleset.TypeProto, ruleset.TypePort}, Data: []ruleset.Type{ruleset.TypeAddr},
	}
	taken := &ruleset.Set{Name: takenSet, Key: []ruleset.Type{ruleset.TypeProto, ruleset.TypePort}}
	for _, port := range want.Taken {
		taken.Elements = append(taken.Elements, ruleset.Element{From: publishKey(port)})
	}
	for _, v := range want.VPCs {
		transit.Elements = append(transit.Elements, ruleset.Element{From: ruleset.Ifname(TransitName(v.UID))})
		routers.Elements = append(routers.Elements, ruleset.Element{From: ruleset.Addr(v.Transit.Router)})
		for _, port := range v.Publish {
			publish.Elements = append(publish.Elements, ruleset.Element{From: publishKey(port), Data: ruleset.Addr(v.Transit.Router)})
		}
	}
	return []*ruleset.Set{transit, routers, publish, taken, protectedSet(want.Protected)}
}

func hostChains(bounded, sockets bool) []*ruleset.Chain {
	drop, accept := verdict(ruleset.Drop), verdict(ruleset.Accept)
	refuse := []ruleset.Expr{count(tenantCounter), drop}
	on := func(f ruleset.Field) ruleset.In { return ruleset.In{Fields: []ruleset.Field{f}, Set: transitSet} }
	reply := direction(dirReply)
	ipv4 := equals(ruleset.NfProto, ruleset.Byte(familyIPv4))
	from := []ruleset.Rule{
		ruleset.Do(append([]ruleset.Expr{ruleset.Match{Field: ruleset.NfProto, Not: true, Value: ruleset.Byte(familyIPv4)}}, refuse...)...),
		ruleset.Do(reply, accept), // of a connection that a published port let in
		ruleset.Do(append([]ruleset.Expr{on(ruleset.Oifname)}, refuse...)...),
		ruleset.Do(ruleset.In{Fields: []ruleset.Field{ruleset.Destination}, Set: protectSet}, count(protectedCounter), drop),
		ruleset.Do(equals(ruleset.L4Proto, ruleset.Proto(protoUDP)), equals(ruleset.DestPort, ruleset.Port(portVXLAN)), count(protectedCounter), drop),
	}
	if bounded {
		leaves := ruleset.In{Fields: []ruleset.Field{ruleset.Oifname}, Set: uplinkSet, Not: true}
		from = append(from, ruleset.Do(append([]ruleset.Expr{leaves}, refuse...)...))
	}
	loopback := ruleset.Do(ipv4, ruleset.InRange{
		Field: ruleset.Destination,
		From:  ruleset.Addr(netip.AddrFrom4([4]byte{127, 0, 0, 0})),
		To:    ruleset.Addr(netip.AddrFrom4([4]byte{127, 255, 255, 255})),
	}, verdict(ruleset.Return))
	published := ruleset.Match{Field: ruleset.CtStatus, Mask: statusDNAT, Not: true, Value: ruleset.Word(0)}
	return []*ruleset.Chain{
		{Name: fromTenants, Rules: append(from, ruleset.Do(accept))},
		{Name: toTenants, Rules: []ruleset.Rule{ruleset.Do(reply, accept), ruleset.Do(published, accept), ruleset.Do(refuse...)}},
		{Name: "forward", Base: base("filter", "forward", 0, false), Rules: []ruleset.Rule{
			ruleset.Do(on(ruleset.Iifname), proceed(fromTenants)),
			ruleset.Do(on(ruleset.Oifname), proceed(toTenants)),
			ruleset.Do(ruleset.In{Fields: []ruleset.Field{ruleset.Iifname}, Set: openedSet}, drop),
		}},
		{Name: "input", Base: base("filter", "input", 0, false), Rules: []ruleset.Rule{
			ruleset.Do(on(ruleset.Iifname), reply, accept),
			ruleset.Do(append([]ruleset.Expr{on(ruleset.Iifname)}, refuse...)...),
		}},
		{Name: "nat_pre", Base: base("nat", "prerouting", -100, false), Rules: translate(sockets)},
		{Name: "nat_out", Base: base("nat", "output", -100, false), Rules: append([]ruleset.Rule{loopback}, translate(false)...)},
		{Name: "nat_post", Base: base("nat", "postrouting", 100, false), Rules: []ruleset.Rule{
			ruleset.Do(ipv4, ruleset.In{Fields: []ruleset.Field{ruleset.Source}, Set: routersSet}, ruleset.Masquerade{}),
		}},
	}
}

// translate sends what is for a published port of the host's addresses to the
// router of the VPC that published it, which translates once more. The port stays.
//
// A port on which the host listens is the host's, also when it began to later: who
// connects to a service of the host must never meet a tenant there. The kernel knows
// its sockets at once, where it can be asked; that the host listens is noted, too,
// for what comes from the host itself, whose packets have their senders' sockets.
func translate(sockets bool) []ruleset.Rule {
	key := []ruleset.Field{ruleset.L4Proto, ruleset.DestPort}
	local := equals(ruleset.FibType, ruleset.Word(fibLocal))
	rules := []ruleset.Rule{ruleset.Do(local, ruleset.In{Fields: key, Set: takenSet}, verdict(ruleset.Return))}
	if sockets {
		rules = append(rules, ruleset.Do(local, ruleset.Socket{}, verdict(ruleset.Return)))
	}
	return append(rules, ruleset.Do(local, ruleset.DNAT{Fields: key, Map: publishMap}))
}
