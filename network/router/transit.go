package router

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network"
	"github.com/gpuhost/gpuhost/network/link"
	"github.com/gpuhost/gpuhost/network/netns"
)

const transitBits = 31

// transit reads what the two ends of the transit link have. Zero: not in order.
func (k *Kernel) transit(s *space, vpc spec.UID) (network.Transit, error) {
	name := network.TransitName(vpc)
	outer, outside, err := k.host.link.Look(name)
	if err != nil || outer == nil {
		return network.Transit{}, err
	}
	if s.link == nil {
		return network.Transit{}, nil // half a cable is none; open lays it anew
	}
	if _, err := s.mirror.Look(); err != nil {
		return network.Transit{}, err
	}
	inner := s.mirror.Get(network.UplinkName)
	if inner == nil || !inner.Up || !outer.Up {
		return network.Transit{}, nil
	}
	inside, err := s.mirror.Addresses(network.UplinkName)
	if err != nil {
		return network.Transit{}, err
	}
	if len(outside) != 1 || len(inside) != 1 {
		return network.Transit{}, nil
	}
	return network.Transit{Host: outside[0].Addr(), Router: inside[0].Addr()}, nil
}

// Open implements network.Routers.
func (k *Kernel) Open(_ context.Context, vpc spec.UID, transit network.Transit) error {
	s := k.space(vpc)
	defer s.mu.Unlock()
	if err := netns.Create(k.pin(vpc)); err != nil {
		return err
	}
	if _, err := k.open(s, vpc); err != nil {
		return err
	}
	if err := netns.Do(s.netns, func() error { return link.Set(routerSwitches()...) }); err != nil {
		return err
	}
	if err := s.link.Up(loopback); err != nil {
		return err
	}
	if err := s.link.Address(loopback, serviceNetwork()); err != nil {
		return err
	}
	have, err := k.transit(s, vpc)
	if err != nil {
		return err
	}
	if have == transit {
		return nil
	}
	return k.layTransit(s, vpc, transit)
}

// routerSwitches make a namespace a router for IPv4 and deaf to IPv6. The guard
// checks sources per link, more strictly than the reverse path filter could.
func routerSwitches() []link.Sysctl {
	switches := []link.Sysctl{{Name: "ipv4/ip_forward", Value: "1"}}
	for _, device := range []string{"all", "default"} {
		switches = append(switches,
			link.Device("ipv4", device, "rp_filter", "0"),
			link.Device("ipv4", device, "accept_redirects", "0"),
			link.Device("ipv4", device, "send_redirects", "0"),
			link.Device("ipv4", device, "accept_source_route", "0"),
			link.Device("ipv4", device, "proxy_arp", "0"),
			link.Device("ipv6", device, "disable_ipv6", "1"),
			link.Device("ipv6", device, "accept_ra", "0"),
		)
	}
	return switches
}

func (k *Kernel) layTransit(s *space, vpc spec.UID, transit network.Transit) error {
	name := network.TransitName(vpc)
	if err := errors.Join(k.host.link.Delete(name), s.link.Delete(network.UplinkName)); err != nil {
		return err
	}
	cable := link.Cable{
		Name: network.UplinkName, Peer: name, PeerNetns: k.here, MTU: k.config.MTU, Alias: k.ours(vpc),
	}
	if err := s.link.Lay(cable); err != nil {
		return err
	}
	if err := k.host.link.Alias(name, k.ours(vpc)); err != nil {
		return err
	}
	// The host's switches of the new device; forwarding is per device, never global.
	err := link.Set(
		link.Device("ipv6", name, "disable_ipv6", "1"),
		link.Device("ipv4", name, "accept_redirects", "0"),
		link.Device("ipv4", name, "forwarding", "1"),
	)
	if err != nil {
		return err
	}
	err = errors.Join(
		k.host.link.Address(name, netip.PrefixFrom(transit.Host, transitBits)),
		s.link.Address(network.UplinkName, netip.PrefixFrom(transit.Router, transitBits)),
		k.host.link.Up(name),
		s.link.Up(network.UplinkName),
		k.host.link.Settle(name),
		s.link.Settle(network.UplinkName),
	)
	if err != nil {
		return err
	}
	return s.link.Route(network.UplinkName, netip.PrefixFrom(netip.IPv4Unspecified(), 0), transit.Host)
}

// Remove implements network.Routers: the transit link goes, the pin, and with it
// the namespace.
func (k *Kernel) Remove(_ context.Context, vpc spec.UID) error {
	s := k.space(vpc)
	defer s.mu.Unlock()
	there, err := k.open(s, vpc)
	if err != nil {
		return err
	}
	if there {
		if err := deleteLinks(s); err != nil {
			return fmt.Errorf("close network %s: %w", vpc, err)
		}
	}
	if err := errors.Join(s.close(), k.host.link.Delete(network.TransitName(vpc)), netns.Delete(k.pin(vpc))); err != nil {
		return fmt.Errorf("close network %s: %w", vpc, err)
	}
	k.forget(vpc, s)
	return nil
}

// deleteLinks ends the cables at once: a namespace that dies ends them in its own
// time.
func deleteLinks(s *space) error {
	links, err := s.link.List()
	if err != nil {
		return err
	}
	for name := range links {
		if name == loopback {
			continue
		}
		if err := s.link.Delete(name); err != nil {
			return err
		}
	}
	return nil
}
