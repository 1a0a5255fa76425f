package router

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network"
	"github.com/gpuhost/gpuhost/network/flow"
	"github.com/gpuhost/gpuhost/network/link"
	"github.com/gpuhost/gpuhost/network/netns"
)

// observeLinks reads the instances' links.
func observeLinks(s *space) (map[spec.UID]network.LinkState, error) {
	links, err := s.link.List()
	if err != nil {
		return nil, err
	}
	states := map[spec.UID]network.LinkState{}
	for name, l := range links {
		uid, ok := network.InstanceOf(name)
		if !ok {
			continue
		}
		current, err := leadsTo(l.Alias)
		if err != nil {
			return nil, err
		}
		states[uid] = network.LinkState{Up: l.Up, Current: current}
	}
	return states, nil
}

// note is a link's alias: which namespace its other end was put into. Two pins
// with one inode are one namespace, so a pin made anew is seen.
func note(path string, inode uint64) string { return fmt.Sprintf("%d %s", inode, path) }

func leadsTo(alias string) (bool, error) {
	number, path, ok := strings.Cut(alias, " ")
	inode, err := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil {
		return false, nil
	}
	have, err := netns.Inode(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && have == inode, err
}

// Attach implements network.Routers. The link is laid down, dressed on both
// sides, and only then switched on, behind a guard that is in force already.
func (k *Kernel) Attach(_ context.Context, vpc spec.UID, e network.Endpoint) error {
	s := k.space(vpc)
	defer s.mu.Unlock()
	if err := k.ready(s, vpc, e); err != nil {
		return err
	}
	inside, err := netns.Open(e.Netns)
	if err != nil {
		return fault.Wrap(fault.Temporary, "open the instance's namespace", err)
	}
	err = k.attach(s, e, inside)
	return errors.Join(err, inside.Close())
}

// ready refuses to make a link whose guard and chains are not in force.
func (k *Kernel) ready(s *space, vpc spec.UID, e network.Endpoint) error {
	there, err := k.open(s, vpc)
	if err != nil {
		return err
	}
	if !there {
		return fault.New(fault.Temporary, "attach", "the router namespace of network %s is not open yet", vpc)
	}
	if err := s.recall(); err != nil {
		return err
	}
	if !network.GuardInForce(s.known.guard, e) {
		return fault.New(fault.Temporary, "attach", "the instance's guard is not in force yet")
	}
	return nil
}

func (k *Kernel) attach(s *space, e network.Endpoint, inside *os.File) error {
	name := network.LinkName(e.Instance)
	inode, err := netns.Inode(e.Netns)
	if err != nil {
		return err
	}
	have, err := s.link.Get(name)
	if err != nil {
		return err
	}
	if have != nil && have.Alias != note(e.Netns, inode) {
		if err := s.link.Delete(name); err != nil {
			return err
		}
		have = nil
	}
	if have == nil {
		if err := flow.ForgetAddress(s.netns, e.Address); err != nil {
			return err
		}
		if err := s.link.Lay(k.cable(e, inside, note(e.Netns, inode))); err != nil {
			return err
		}
	}
	if err := dressInstance(e, inside); err != nil {
		return err
	}
	return dressRouter(s, e)
}

func (k *Kernel) cable(e network.Endpoint, inside *os.File, alias string) link.Cable {
	return link.Cable{
		Name: network.LinkName(e.Instance), MAC: network.RouterMAC(),
		Peer: network.InstanceLinkName, PeerMAC: network.InstanceMAC(e.Instance), PeerNetns: inside,
		MTU: k.config.MTU, Alias: alias,
	}
}

// dressInstance sets what the instance finds in its own namespace.
func dressInstance(e network.Endpoint, inside *os.File) error {
	err := netns.Do(inside, func() error {
		return link.Set(
			link.Device("ipv6", "all", "disable_ipv6", "1"),
			link.Device("ipv6", "default", "disable_ipv6", "1"),
			link.Device("ipv6", "all", "accept_ra", "0"),
			link.Device("ipv4", "all", "accept_redirects", "0"),
		)
	})
	if err != nil {
		return err
	}
	conn, err := link.Open(inside)
	if err != nil {
		return err
	}
	defer conn.Close()
	const eth0 = network.InstanceLinkName
	if err := conn.Up("lo"); err != nil {
		return err
	}
	if err := conn.Address(eth0, netip.PrefixFrom(e.Address, 32)); err != nil {
		return err
	}
	if err := conn.Up(eth0); err != nil {
		return err
	}
	if err := conn.Neighbour(eth0, network.Gateway(), network.RouterMAC()); err != nil {
		return err
	}
	return conn.Route(eth0, netip.PrefixFrom(netip.IPv4Unspecified(), 0), network.Gateway())
}

// dressRouter gives the instance's address its way, and switches the link on.
func dressRouter(s *space, e network.Endpoint) error {
	name := network.LinkName(e.Instance)
	if err := s.link.Up(name); err != nil {
		return err
	}
	if err := s.link.Neighbour(name, e.Address, network.InstanceMAC(e.Instance)); err != nil {
		return err
	}
	return s.link.Route(name, netip.PrefixFrom(e.Address, 32), netip.Addr{})
}

// Detach implements network.Routers.
func (k *Kernel) Detach(_ context.Context, vpc spec.UID, e network.Endpoint) error {
	s := k.space(vpc)
	defer s.mu.Unlock()
	there, err := k.open(s, vpc)
	if err != nil || !there {
		return err
	}
	if err := s.link.Delete(network.LinkName(e.Instance)); err != nil {
		return err
	}
	return flow.ForgetAddress(s.netns, e.Address)
}
