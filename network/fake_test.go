package network_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network"
	"github.com/gpuhost/gpuhost/network/ruleset"
)

// fake is a kernel in memory. It refuses what the real one refuses.
type fake struct {
	order order
	vpcs  map[spec.UID]*network.Have
	host  network.HostHave
	crash bool // the next attach ends between the link and its guard
	// forwarded are the host's devices that forwarded before us.
	forwarded map[string]bool
	bare      string // the device that has no address now
}

// order is how a kernel relates guards to their links.
type order struct {
	name      string
	linkFirst bool
	// end is what is left of a guard whose link ends; nil for nothing.
	end func(ruleset.ChainState) *ruleset.ChainState
}

func orders() []order {
	keep := func(guard ruleset.ChainState) *ruleset.ChainState { return &guard }
	unbind := func(guard ruleset.ChainState) *ruleset.ChainState {
		hook := *guard.Base
		hook.Device = ""
		guard.Base = &hook
		return &guard
	}
	return []order{
		{"guard first", false, keep},
		{"link first, the guard ends with its link", true, func(ruleset.ChainState) *ruleset.ChainState { return nil }},
		{"link first, the guard loses its link", true, unbind}, // Linux 6.14 and 6.15
		{"link first, the guard stays", true, keep},            // the order forced on a newer kernel
	}
}

// inEveryOrder checks a property on each kind of kernel.
func inEveryOrder(t *testing.T, property func(t *rapid.T, l *lab)) {
	for _, o := range orders() {
		t.Run(o.name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) { property(t, newLab(t, o)) })
		})
	}
}

var (
	errOrder = errors.New("the kernel refuses")
	errCrash = errors.New("the process ends here")
)

func newFake(o order) *fake {
	return &fake{
		order: o, vpcs: map[spec.UID]*network.Have{},
		host:      network.HostHave{Forwarding: map[string]bool{"eth0": false, "eth1": true, "eth2": false}},
		forwarded: map[string]bool{"eth1": true},
	}
}

func (f *fake) List(context.Context) ([]spec.UID, error) {
	var uids []spec.UID
	for uid := range f.vpcs {
		uids = append(uids, uid)
	}
	return uids, nil
}

func (f *fake) Observe(_ context.Context, vpc spec.UID) (network.Have, error) {
	have := f.vpcs[vpc]
	if have == nil {
		return network.Have{}, nil
	}
	seen := *have
	seen.Links = maps.Clone(have.Links)
	return seen, nil
}

func (f *fake) Marks(ctx context.Context, vpc spec.UID) (network.Marks, error) {
	have, err := f.Observe(ctx, vpc)
	return network.MarksOf(have.Router), err
}

func (f *fake) Inspect(ctx context.Context, vpc, _ spec.UID, _ network.Bearing) (network.Have, error) {
	return f.Observe(ctx, vpc)
}

func (f *fake) Open(_ context.Context, vpc spec.UID, transit network.Transit) error {
	have := f.vpcs[vpc]
	if have == nil {
		have = &network.Have{LinkFirst: f.order.linkFirst, Links: map[spec.UID]network.LinkState{}}
		f.vpcs[vpc] = have
	}
	have.Namespace, have.Ready, have.Transit = true, true, transit
	return nil
}

func (f *fake) Remove(_ context.Context, vpc spec.UID) error {
	delete(f.vpcs, vpc)
	return nil
}

func (f *fake) Load(_ context.Context, vpc spec.UID, load network.LoadArgs) error {
	have := f.vpcs[vpc]
	if have == nil {
		return fmt.Errorf("%w: load without a namespace", errOrder)
	}
	rules := load.Rules
	if f.order.linkFirst {
		rules = rules.GuardedLinks(have.Linked)
	}
	for _, c := range rules.Diff(have.Guard, have.Router) {
		if c.Replace != "" {
			return fmt.Errorf("%w to look away: %s", errOrder, c.Replace)
		}
	}
	have.Guard, have.Router = rules.Guard.State(), rules.Router.State()
	return nil
}

func (f *fake) Attach(_ context.Context, vpc spec.UID, e network.Endpoint) error {
	have := f.vpcs[vpc]
	if have == nil || !network.RulesInForce(have.Router, e) || !f.order.linkFirst && !network.GuardInForce(have.Guard, e) {
		return fmt.Errorf("%w: attach without rules", errOrder)
	}
	if link := have.Links[e.Instance]; !link.Current || link.Address != e.Address {
		f.end(vpc, e.Instance)
		if f.order.linkFirst {
			f.guard(have, e, nil)
		}
		have.Links[e.Instance] = network.LinkState{Current: true, Address: e.Address}
	}
	if f.crash {
		f.crash = false
		return errCrash
	}
	name := network.GuardName(e.Instance)
	if f.order.linkFirst && have.Guard.Chain(name) == nil {
		added := ruleset.Table{Chains: network.AddGuard("", e).Fill}
		f.guard(have, e, added.State().Chain(name))
	}
	if !network.GuardInForce(have.Guard, e) {
		return fmt.Errorf("%w: attach without a guard", errOrder)
	}
	have.Links[e.Instance] = network.LinkState{Up: true, Current: true, Address: e.Address}
	return nil
}

// guard replaces one guard; nil removes it.
func (f *fake) guard(have *network.Have, e network.Endpoint, chain *ruleset.ChainState) {
	named := func(c *ruleset.ChainState) bool { return c.Name == network.GuardName(e.Instance) }
	chains := slices.DeleteFunc(slices.Clone(have.Guard.Chains), named)
	if chain != nil {
		chains = append(chains, chain)
	}
	have.Guard = &ruleset.State{Counters: have.Guard.Counters, Sets: have.Guard.Sets, Chains: chains}
}

// end is what happens when the namespace that a link leads to ends.
func (f *fake) end(vpc, instance spec.UID) {
	have := f.vpcs[vpc]
	if have == nil || !have.Linked(instance) {
		return
	}
	delete(have.Links, instance)
	e := network.Endpoint{Instance: instance}
	if guard := have.Guard.Chain(network.GuardName(instance)); guard != nil {
		f.guard(have, e, f.order.end(*guard))
	}
}

// unguarded names the links that are up without the guard that is wanted.
func (f *fake) unguarded(want network.VPC) []spec.UID {
	var names []spec.UID
	for _, e := range want.Endpoints {
		have := f.vpcs[want.UID]
		if have == nil || !have.Links[e.Instance].Up {
			continue
		}
		guard := have.Guard.Chain(network.GuardName(e.Instance))
		if guard == nil || !guard.Base.Drop || guard.Base.Device != network.LinkName(e.Instance) {
			names = append(names, e.Instance)
		}
	}
	return names
}

func (f *fake) Detach(_ context.Context, vpc spec.UID, e network.Endpoint) error {
	f.end(vpc, e.Instance)
	return nil
}

func (f *fake) ObserveHost(context.Context) (network.HostHave, error) {
	seen := f.host
	seen.Forwarding = maps.Clone(f.host.Forwarding)
	maps.DeleteFunc(seen.Forwarding, func(device string, _ bool) bool { return device == f.bare })
	return seen, nil
}

func (f *fake) LoadHost(_ context.Context, load network.HostArgs) error {
	f.host.Opened = slices.Clone(load.Opened)
	f.host.Table = nil
	if load.Table != nil {
		f.host.Table = load.Table.State()
	}
	return nil
}

func (f *fake) Forward(_ context.Context, forward network.ForwardArgs) error {
	for _, device := range forward.Open {
		f.host.Forwarding[device] = true
	}
	for _, device := range forward.Close {
		f.host.Forwarding[device] = false
	}
	return nil
}

// routes names a device that forwards for its neighbours and would not without us.
func (f *fake) routes() string {
	dropped := func(device string) bool {
		opened := f.host.Table.Set("opened")
		return opened != nil && slices.Contains(opened.Elements, ruleset.Element{From: ruleset.Ifname(device)})
	}
	for device, forwards := range f.host.Forwarding {
		if forwards && !f.forwarded[device] && !dropped(device) {
			return device
		}
	}
	return ""
}

func (f *fake) WatchHost(context.Context, func()) error { return nil }

func (f *fake) Counters(context.Context, spec.UID) (map[string]network.Count, error) {
	return nil, nil
}

func (f *fake) ServiceSockets(context.Context, spec.UID) (udp, tcp *os.File, err error) {
	return nil, nil, nil
}
