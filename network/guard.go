package network

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network/ruleset"
)

// A guard is in force before its link is switched on. How, the kernel decides:
//
//	guard first (since Linux 6.16)   load: guard ──▶ attach: link ──▶ up
//	link first  (before)             load ──▶ attach: link, down ──▶ guard ──▶ up
//
// With the link first the kernel takes a guard away together with its link:
// before 6.14 the whole chain, after that the chain's device. So load wants the
// guards of links that are there, and attach makes the others.

// guardChain lets an instance send IPv4 from its own two addresses and nothing
// else: no ARP (both ends have permanent neighbours), no IPv6.
func guardChain(e Endpoint) *ruleset.Chain {
	hook := base("filter", "ingress", guardPriority, true)
	hook.Device = LinkName(e.Instance)
	return &ruleset.Chain{Name: GuardName(e.Instance), Base: hook, Rules: []ruleset.Rule{
		ruleset.Do(equals(ruleset.EtherProtocol, ruleset.EtherType(etherIPv4)),
			equals(ruleset.EtherSource, ruleset.MAC(InstanceMAC(e.Instance))),
			equals(ruleset.Source, ruleset.Addr(e.Address)), verdict(ruleset.Accept)),
		{Exprs: []ruleset.Expr{count(spoofCounter), verdict(ruleset.Drop)}, Comment: guardComment + e.Address.String()},
	}}
}

// guardComment comes before the address in a guard's last rule, so that whoever
// reads the guard back knows whose it is.
const guardComment = "guard of "

func guardedAddress(chain *ruleset.ChainState) (netip.Addr, bool) {
	if chain == nil || len(chain.Rules) == 0 {
		return netip.Addr{}, false
	}
	text, ok := strings.CutPrefix(chain.Rules[len(chain.Rules)-1].Comment, guardComment)
	address, err := netip.ParseAddr(text)
	return address, ok && err == nil
}

// GuardInForce says whether the guard of an endpoint is among the chains read
// back: the right device, the right address, and default deny.
func GuardInForce(guard *ruleset.State, e Endpoint) bool {
	return ruleset.Differs(guardChain(e), guard.Chain(GuardName(e.Instance))) == ""
}

// RulesInForce says whether the tables read back decide about an endpoint's
// packets: denied unless its own chains, which its link leads to, let them pass.
func RulesInForce(router *ruleset.State, e Endpoint) bool {
	return ruleset.Differs(forward(), router.Chain(forwardChain)) == "" && entryControl(router, e.Instance).Pass
}

// GuardedLinks are the rules that can be in force where a guard needs its link:
// without the guards of instances that have none.
func (r *Rules) GuardedLinks(linked func(instance spec.UID) bool) *Rules {
	guard := &ruleset.Table{Family: r.Guard.Family, Name: r.Guard.Name, Counters: r.Guard.Counters, Sets: r.Guard.Sets}
	guard.Chains = slices.DeleteFunc(slices.Clone(r.Guard.Chains), func(c *ruleset.Chain) bool {
		instance, ok := InstanceOf(c.Base.Device)
		return ok && !linked(instance)
	})
	rules := *r
	rules.Guard = guard
	return &rules
}

// AddGuard makes the guard of an endpoint that has none, beside those of others.
func AddGuard(table string, e Endpoint) *ruleset.Changes {
	chains := []*ruleset.Chain{guardChain(e)}
	return &ruleset.Changes{Table: guardTable(table), AddChains: chains, Fill: chains}
}

// DropGuard removes an endpoint's guard, to be used once its link is gone.
func DropGuard(table string, e Endpoint) *ruleset.Changes {
	names := []string{GuardName(e.Instance)}
	return &ruleset.Changes{Table: guardTable(table), Flush: names, DeleteChains: names}
}

func guardTable(name string) *ruleset.Table {
	return &ruleset.Table{Family: ruleset.Netdev, Name: name}
}
