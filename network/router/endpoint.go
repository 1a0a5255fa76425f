package router

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network"
	"github.com/gpuhost/gpuhost/network/link"
	"github.com/gpuhost/gpuhost/network/netns"
)

// looked is how the instances' links were when they were looked at. It holds until
// a link changes, or a pin.
type looked struct {
	mirror, mounts uint64 // versions
	links          map[string]link.State
	states         map[spec.UID]network.LinkState // given out, never changed
}

// observeLinks looks at the instances' links.
func (k *Kernel) observeLinks(s *space) (map[spec.UID]network.LinkState, error) {
	mirror, err := s.mirror.Look()
	if err != nil {
		return nil, err
	}
	mounts, err := k.mounts.Version()
	if err != nil {
		return nil, err
	}
	before := s.looked
	if before.states != nil && before.mirror == mirror && before.mounts == mounts {
		return before.states, nil
	}
	now := looked{mirror, mounts, s.mirror.Links(), map[spec.UID]network.LinkState{}}
	for name, l := range now.links {
		uid, ok := network.InstanceOf(name)
		if !ok {
			continue
		}
		if state, known := before.states[uid]; known && before.links[name] == l && before.mounts == mounts {
			now.states[uid] = state
			continue
		}
		if now.states[uid], err = observeLink(s, l); err != nil {
			return nil, err
		}
	}
	s.looked = now
	return now.states, nil
}

// note is a link's alias: which address and which pinned namespace it was made for.
func note(e network.Endpoint) string { return e.Address.String() + " " + e.Netns }

func observeLink(s *space, l link.State) (network.LinkState, error) {
	text, path, _ := strings.Cut(l.Alias, " ")
	address, err := netip.ParseAddr(text)
	if err != nil {
		return network.LinkState{Up: l.Up}, nil // not a link of ours, or not finished
	}
	current, err := leadsTo(s, l, path)
	return network.LinkState{Up: l.Up, Current: current, Address: address}, err
}

// leadsTo says whether a link's other end lies in the namespace pinned at path.
// The numbers of namespaces are compared, because a pin can be made anew.
func leadsTo(s *space, l link.State, path string) (bool, error) {
	inode, err := netns.Inode(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	now := sight{l.Index, l.Peer, inode}
	if s.seen[path] == now {
		return true, nil
	}
	pinned, err := netns.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // unpinned since, as its instance went away
	}
	if err != nil {
		return false, err
	}
	number, err := s.link.Number(pinned)
	current := number >= 0 && number == l.Peer
	if current {
		if s.seen == nil {
			s.seen = map[string]sight{}
		}
		s.seen[path] = now
	}
	return current, errors.Join(err, pinned.Close())
}

// Attach implements network.Routers. The link is laid down, dressed on both
// sides, and only then switched on, behind a guard that is in force already.
func (k *Kernel) Attach(_ context.Context, vpc spec.UID, e network.Endpoint) error {
	s := k.space(vpc)
	defer s.mu.Unlock()
	there, err := k.open(s, vpc)
	if err != nil {
		return err
	}
	if !there {
		return fault.New(fault.Temporary, "attach", "the router namespace of network %s is not open yet", vpc)
	}
	if err := k.ready(s, e); err != nil {
		return err
	}
	inside, err := netns.Open(e.Netns)
	if err != nil {
		return fault.Wrap(fault.Temporary, "open the instance's namespace", err)
	}
	err = k.attach(s, e, inside)
	return errors.Join(err, inside.Close())
}

func (k *Kernel) attach(s *space, e network.Endpoint, inside *os.File) error {
	if err := k.lay(s, e, inside); err != nil {
		return err
	}
	if err := k.guard(s, e); err != nil {
		return err
	}
	conn, err := link.Open(inside)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := dressInstance(conn, e, inside); err != nil {
		return err
	}
	if err := dressRouter(s.link, e); err != nil {
		return err
	}
	return errors.Join(s.link.Settle(network.LinkName(e.Instance)), conn.Settle(network.InstanceLinkName))
}

// lay lays the instance's cable, both ends down, unless it is there already.
func (k *Kernel) lay(s *space, e network.Endpoint, inside *os.File) error {
	name := network.LinkName(e.Instance)
	have, err := s.link.Get(name)
	if err != nil {
		return err
	}
	if have != nil && have.Alias == note(e) {
		if current, err := leadsTo(s, *have, e.Netns); current || err != nil {
			return err
		}
	}
	if err := s.link.Delete(name); err != nil {
		return err
	}
	if err := k.forgetGuard(s, e); err != nil {
		return err
	}
	if err := s.flow.ForgetAddress(e.Address); err != nil {
		return err
	}
	return s.link.Lay(k.cable(e, inside))
}

func (k *Kernel) cable(e network.Endpoint, inside *os.File) link.Cable {
	return link.Cable{
		Name: network.LinkName(e.Instance), MAC: network.RouterMAC(),
		Peer: network.InstanceLinkName, PeerMAC: network.InstanceMAC(e.Instance), PeerNetns: inside,
		MTU: k.config.MTU, Alias: note(e),
	}
}

// dressInstance sets what the instance finds in its own namespace.
func dressInstance(conn *link.Conn, e network.Endpoint, inside *os.File) error {
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
func dressRouter(conn *link.Conn, e network.Endpoint) error {
	name := network.LinkName(e.Instance)
	if err := conn.Up(name); err != nil {
		return err
	}
	if err := conn.Neighbour(name, e.Address, network.InstanceMAC(e.Instance)); err != nil {
		return err
	}
	return conn.Route(name, netip.PrefixFrom(e.Address, 32), netip.Addr{})
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
	delete(s.seen, e.Netns)
	return s.flow.ForgetAddress(e.Address)
}
