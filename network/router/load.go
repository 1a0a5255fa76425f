package router

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network"
	"github.com/gpuhost/gpuhost/network/flow"
	"github.com/gpuhost/gpuhost/network/netns"
	"github.com/gpuhost/gpuhost/network/ruleset"
)

// Load implements network.Routers. Both tables change in one transaction; what is
// the same already is not written.
func (k *Kernel) Load(_ context.Context, vpc spec.UID, load network.LoadArgs) error {
	s := k.space(vpc)
	defer s.mu.Unlock()
	there, err := k.open(s, vpc)
	if err != nil {
		return err
	}
	if !there {
		return fault.New(fault.Temporary, "load", "the router namespace of network %s is not open yet", vpc)
	}
	if err := k.recall(s); err != nil {
		return err
	}
	for _, m := range load.Stale {
		if err := s.flow.ForgetMark(m.Mark, m.Mask); err != nil {
			return err
		}
	}
	rules, err := k.loadable(s, load.Rules)
	if err != nil {
		return err
	}
	gone := append(network.Unpublished(s.known.router, rules.Router), load.Owed...)
	before := s.known.generation
	s.owed.unknown(gone)
	if err := s.load(rules); err != nil {
		return err
	}
	if err := forgetPorts(s.flow, gone); err != nil {
		return err
	}
	s.owed.paid(before, s.known.generation)
	for _, address := range load.Gone {
		if err := s.flow.ForgetAddress(address); err != nil {
			return err
		}
	}
	return nil
}

func forgetPorts(conn *flow.Conn, gone []network.Published) error {
	for _, p := range gone {
		if err := conn.ForgetPort(p.Protocol, p.Port, p.To); err != nil {
			return err
		}
	}
	return nil
}

func (s *space) load(rules *network.Rules) error {
	changes := rules.Diff(s.known.guard, s.known.router)
	if len(changes) == 0 {
		return nil
	}
	return s.change(memory{guard: rules.Guard.State(), router: rules.Router.State()}, changes...)
}

// change makes changes in one transaction and remembers what they leave.
func (s *space) change(left memory, changes ...*ruleset.Changes) error {
	before := s.known
	s.known.valid = false
	if err := s.nft.Apply(changes...); err != nil {
		return err
	}
	generation, err := s.nft.Generation()
	if err != nil {
		return err
	}
	// One transaction counts the generation up by one. By more: somebody else
	// wrote too, and what is there must be read.
	s.evidence.after(generation, changes)
	left.valid, left.generation, left.links = before.valid && generation == before.generation+1, generation, before.links
	s.known = left
	return nil
}

// Counters implements network.Inside.
func (k *Kernel) Counters(_ context.Context, vpc spec.UID) (map[string]network.Count, error) {
	s := k.space(vpc)
	defer s.mu.Unlock()
	there, err := k.open(s, vpc)
	if err != nil || !there {
		return nil, err
	}
	readings, err := s.nft.Counters(ruleset.INet)
	if err != nil {
		return nil, err
	}
	counts := make(map[string]network.Count, len(readings))
	for name, r := range readings {
		counts[name] = network.Count{Packets: r.Packets, Bytes: r.Bytes}
	}
	return counts, nil
}

// ServiceSockets implements network.Inside.
func (k *Kernel) ServiceSockets(_ context.Context, vpc spec.UID) (udp, tcp *os.File, err error) {
	s := k.space(vpc)
	defer s.mu.Unlock()
	there, err := k.open(s, vpc)
	if err != nil {
		return nil, nil, err
	}
	if !there {
		return nil, nil, fault.New(fault.Temporary, "open service sockets", "the router namespace of network %s is not open yet", vpc)
	}
	err = netns.Do(s.netns, func() error {
		udp, tcp, err = listen(netip.AddrPortFrom(network.ServiceAddress(), 53))
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("open service sockets of network %s: %w", vpc, err)
	}
	return udp, tcp, nil
}

// listen opens both sockets in the namespace of the calling thread.
func listen(address netip.AddrPort) (udp, tcp *os.File, err error) {
	packets, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(address))
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, packets.Close()) }()
	streams, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(address))
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, streams.Close()) }()
	if udp, err = packets.File(); err != nil {
		return nil, nil, err
	}
	if tcp, err = streams.File(); err != nil {
		return nil, nil, errors.Join(err, udp.Close())
	}
	return udp, tcp, nil
}
