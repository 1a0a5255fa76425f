package router

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network"
	"github.com/gpuhost/gpuhost/network/netns"
	"github.com/gpuhost/gpuhost/network/nft"
	"github.com/gpuhost/gpuhost/network/ruleset"
)

// chooseOrder finds out whether a guard can be made before its link. It asks the
// kernel, not its version: distributions bring features to older ones.
func (k *Kernel) chooseOrder() error {
	if k.config.LinkFirst {
		k.linkFirst = true
		return nil
	}
	early, err := k.bindsEarly()
	if err != nil {
		return err
	}
	if k.linkFirst = !early; k.linkFirst {
		k.config.Log.Info("guards are made after their links, which are down until then: this kernel cannot make them before")
	}
	return nil
}

// bindsEarly tries to bind a chain to a device that is not there: possible since
// Linux 6.16, ENOENT before.
func (k *Kernel) bindsEarly() (bool, error) {
	hook := &ruleset.Base{Type: "filter", Hook: "ingress", Device: "absent"}
	return k.accepts(ruleset.Netdev, &ruleset.Chain{Name: "probe", Base: hook})
}

// asksSockets tries a rule that asks for a socket: a module of the kernel that may
// be left out.
func (k *Kernel) asksSockets() (bool, error) {
	hook := &ruleset.Base{Type: "filter", Hook: "prerouting"}
	return k.accepts(ruleset.INet, &ruleset.Chain{Name: "probe", Base: hook, Rules: []ruleset.Rule{ruleset.Do(ruleset.Socket{})}})
}

// accepts tries a chain in a scratch namespace. Whatever the kernel lacks for it, it
// says ENOENT.
func (k *Kernel) accepts(f ruleset.Family, chain *ruleset.Chain) (bool, error) {
	scratch, err := netns.Scratch()
	if err != nil {
		return false, err
	}
	conn, err := nft.Open(k.low, scratch, k.table)
	if err != nil {
		return false, errors.Join(err, scratch.Close())
	}
	table := &ruleset.Table{Family: f, Name: k.table, Chains: []*ruleset.Chain{chain}}
	err = conn.Apply(ruleset.Diff(nil, table))
	closed := errors.Join(conn.Close(), scratch.Close())
	if errors.Is(err, unix.ENOENT) {
		return false, closed
	}
	return err == nil, errors.Join(err, closed)
}

// recall brings what is remembered of both tables up to date. Where guards end
// with their links, for which the kernel counts no generation, they are read again
// after anything happened to a link.
func (k *Kernel) recall(s *space) error {
	if err := s.recall(); err != nil || !k.linkFirst {
		return err
	}
	version, err := s.mirror.Look()
	if err != nil || version == s.known.links {
		return err
	}
	guard, err := s.nft.Read(ruleset.Netdev)
	s.known.guard, s.known.valid, s.known.links = guard, err == nil, version
	return err
}

// loadable are the rules that can be in force now: all, or those without the
// guards of links that are not there.
func (k *Kernel) loadable(s *space, rules *network.Rules) (*network.Rules, error) {
	if !k.linkFirst {
		return rules, nil
	}
	_, err := s.mirror.Look()
	return rules.GuardedLinks(func(instance spec.UID) bool {
		return s.mirror.Get(network.LinkName(instance)) != nil
	}), err
}

// ready refuses to make a link that its rules do not wait for already, and its
// guard, where the kernel can have it wait.
func (k *Kernel) ready(s *space, e network.Endpoint) error {
	if err := s.recall(); err != nil {
		return err
	}
	if !network.RulesInForce(s.known.router, e) {
		return fault.New(fault.Temporary, "attach", "the instance's rules are not in force yet")
	}
	if k.linkFirst {
		return nil
	}
	return mustGuard(s.known.guard, e)
}

func mustGuard(guard *ruleset.State, e network.Endpoint) error {
	if !network.GuardInForce(guard, e) {
		return fault.New(fault.Temporary, "attach", "the instance's guard is not in force yet")
	}
	return nil
}

// guard puts the guard of a link in force that is there and down, where it could
// not be before, and reads it back: without it the link stays down.
func (k *Kernel) guard(s *space, e network.Endpoint) error {
	if !k.linkFirst {
		return nil // ready saw it
	}
	guard, err := s.guardOf(e)
	if err != nil {
		return err
	}
	if len(guard.Chains) == 0 {
		if err := s.change(s.known, network.AddGuard(k.table, e)); err != nil {
			return err
		}
		if guard, err = s.guardOf(e); err != nil {
			return err
		}
	}
	return mustGuard(guard, e)
}

// forgetGuard removes what the kernel left of the guard of a link that is gone:
// since Linux 6.14 a chain without a device, which none can be bound to.
func (k *Kernel) forgetGuard(s *space, e network.Endpoint) error {
	if !k.linkFirst {
		return nil
	}
	guard, err := s.guardOf(e)
	if err != nil || len(guard.Chains) == 0 {
		return err
	}
	return s.change(s.known, network.DropGuard(k.table, e))
}

// guardOf reads one guard back, trusting nothing remembered.
func (s *space) guardOf(e network.Endpoint) (*ruleset.State, error) {
	return s.nft.ReadChains(ruleset.Netdev, network.GuardName(e.Instance))
}
