// Package link makes the virtual cables between namespaces and sets what lies on
// them: addresses, routes, permanent neighbours and the switches of /proc/sys/net.
// It is the only importer of vishvananda/netlink.
//
//	host ── gt-VPC ═══ up0 ── router namespace ── i-X ═══ eth0 ── instance X
//
// Every instance hangs on a cable of its own with a /32 address: there is no
// bridge, no shared segment and no ARP.
//
// Neighbours: network/netns owns the namespaces, network decides what is wanted.
package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Conn is a lasting socket into one namespace. It is for one goroutine at a time.
type Conn struct{ handle *netlink.Handle }

// Open connects to the namespace that netns refers to, nil for the caller's own.
func Open(netns *os.File) (*Conn, error) {
	var handle *netlink.Handle
	var err error
	if netns == nil {
		handle, err = netlink.NewHandle(unix.NETLINK_ROUTE)
	} else {
		handle, err = netlink.NewHandleAt(vnetns.NsHandle(netns.Fd()), unix.NETLINK_ROUTE)
	}
	if err != nil {
		return nil, fmt.Errorf("open route socket: %w", err)
	}
	return &Conn{handle}, nil
}

// Close closes the socket.
func (c *Conn) Close() { c.handle.Close() }

// State is what a link looks like.
type State struct {
	Name  string
	Up    bool
	Alias string
	Index int
	// Peer is this namespace's number for the one that the other end lies in;
	// negative when it lies in this one or there is none.
	Peer int

	cable   bool // it is an end of one
	carrier bool // the other end is up
}

// List reads all links of the namespace by name.
func (c *Conn) List() (map[string]State, error) {
	links, err := c.handle.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	states := make(map[string]State, len(links))
	for _, l := range links {
		states[l.Attrs().Name] = stateOf(l)
	}
	return states, nil
}

func stateOf(l netlink.Link) State {
	a := l.Attrs()
	return State{
		Name: a.Name, Up: a.Flags&net.FlagUp != 0, Alias: a.Alias, Index: a.Index, Peer: a.NetNsID,
		cable: l.Type() == "veth", carrier: a.RawFlags&unix.IFF_LOWER_UP != 0,
	}
}

// Get reads one link; nil when there is none of that name.
func (c *Conn) Get(name string) (*State, error) {
	l, err := c.find(name)
	if l == nil || err != nil {
		return nil, err
	}
	state := stateOf(l)
	return &state, nil
}

func (c *Conn) find(name string) (netlink.Link, error) {
	l, err := c.handle.LinkByName(name)
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find link %s: %w", name, err)
	}
	return l, nil
}

func (c *Conn) must(name string) (netlink.Link, error) {
	l, err := c.find(name)
	if err == nil && l == nil {
		return nil, fmt.Errorf("find link %s: %w", name, os.ErrNotExist)
	}
	return l, err
}

// Delete removes a link and with it its other end. One that is not there is no
// error.
func (c *Conn) Delete(name string) error {
	l, err := c.find(name)
	if l == nil || err != nil {
		return err
	}
	if err := c.handle.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete link %s: %w", name, err)
	}
	return nil
}

// Cable is a pair of linked interfaces: one here, its peer in another namespace.
// Nil addresses are left to the kernel.
type Cable struct {
	Name, Peer   string
	MAC, PeerMAC net.HardwareAddr
	PeerNetns    *os.File
	MTU          int
	Alias        string // of this end: whose it is
}

// Lay makes a cable, both ends down.
func (c *Conn) Lay(cable Cable) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr, attrs.Alias = cable.Name, cable.MTU, cable.MAC, cable.Alias
	veth := &netlink.Veth{
		LinkAttrs: attrs, PeerName: cable.Peer, PeerHardwareAddr: cable.PeerMAC,
		PeerNamespace: netlink.NsFd(cable.PeerNetns.Fd()), PeerMTU: uint32(cable.MTU),
	}
	if err := c.handle.LinkAdd(veth); err != nil {
		return fmt.Errorf("lay cable %s: %w", cable.Name, err)
	}
	return c.Alias(cable.Name, cable.Alias)
}

// Alias writes a note on a link: whose it is.
func (c *Conn) Alias(name, alias string) error {
	l, err := c.must(name)
	if err != nil {
		return err
	}
	if err := c.handle.LinkSetAlias(l, alias); err != nil {
		return fmt.Errorf("note on link %s: %w", name, err)
	}
	return nil
}

// Settle makes sure that a link whose both ends are up carries packets. The
// kernel puts a link in order a moment after it gets its carrier, and drops what is
// sent until then; to ask for its state makes it do so at once (since Linux 6.7;
// before, the first packets may be lost).
func (c *Conn) Settle(name string) error {
	_, err := c.must(name)
	return err
}

// Up switches a link on.
func (c *Conn) Up(name string) error {
	l, err := c.must(name)
	if err != nil {
		return err
	}
	if err := c.handle.LinkSetUp(l); err != nil {
		return fmt.Errorf("switch on link %s: %w", name, err)
	}
	return nil
}

// Address puts an address on a link. Once is enough.
func (c *Conn) Address(name string, address netip.Prefix) error {
	l, err := c.must(name)
	if err != nil {
		return err
	}
	if err := c.handle.AddrReplace(l, &netlink.Addr{IPNet: network(address)}); err != nil {
		return fmt.Errorf("put %s on %s: %w", address, name, err)
	}
	return nil
}

// Addresses reads the IPv4 addresses of a link.
func (c *Conn) Addresses(name string) ([]netip.Prefix, error) {
	l, err := c.find(name)
	if l == nil || err != nil {
		return nil, err
	}
	addrs, err := c.handle.AddrList(l, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("read addresses of %s: %w", name, err)
	}
	var out []netip.Prefix
	for _, a := range addrs {
		ip, _ := netip.AddrFromSlice(a.IP.To4())
		ones, _ := a.Mask.Size()
		out = append(out, netip.PrefixFrom(ip, ones))
	}
	return out, nil
}

// Route sends a network out of a link: directly, or by a gateway that need not
// be on the link's own network.
func (c *Conn) Route(name string, to netip.Prefix, gateway netip.Addr) error {
	l, err := c.must(name)
	if err != nil {
		return err
	}
	route := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: network(to), Scope: netlink.SCOPE_LINK}
	if gateway.IsValid() {
		route.Gw, route.Scope = net.IP(gateway.AsSlice()), netlink.SCOPE_UNIVERSE
		route.SetFlag(netlink.FLAG_ONLINK)
	}
	if err := c.handle.RouteReplace(route); err != nil {
		return fmt.Errorf("route %s by %s: %w", to, name, err)
	}
	return nil
}

// Neighbour says for ever which Ethernet address an IP address on a link has.
func (c *Conn) Neighbour(name string, address netip.Addr, mac net.HardwareAddr) error {
	l, err := c.must(name)
	if err != nil {
		return err
	}
	neighbour := &netlink.Neigh{
		LinkIndex: l.Attrs().Index, State: netlink.NUD_PERMANENT, Family: netlink.FAMILY_V4,
		IP: address.AsSlice(), HardwareAddr: mac,
	}
	if err := c.handle.NeighSet(neighbour); err != nil {
		return fmt.Errorf("set neighbour %s on %s: %w", address, name, err)
	}
	return nil
}

// Number is this namespace's number for another one; negative when it has none,
// and so no link leads there.
func (c *Conn) Number(netns *os.File) (int, error) {
	number, err := c.handle.GetNetNsIdByFd(int(netns.Fd()))
	if err != nil {
		return 0, fmt.Errorf("number namespace %s: %w", netns.Name(), err)
	}
	return number, nil
}

// Addressed names the links, the loopback aside, that have an IPv4 address.
func (c *Conn) Addressed() ([]string, error) {
	addrs, err := c.handle.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	links, err := c.List()
	if err != nil {
		return nil, err
	}
	addressed := make(map[int]bool, len(addrs))
	for _, a := range addrs {
		addressed[a.LinkIndex] = !a.IP.IsLoopback()
	}
	var names []string
	for name, l := range links {
		if addressed[l.Index] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Uplink is a link by which a default route leaves the host.
type Uplink struct {
	Name string
	MTU  int
}

// Uplinks are the links of the IPv4 default routes in the main table, by name.
func (c *Conn) Uplinks() ([]Uplink, error) {
	routes, err := c.handle.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var up []Uplink
	for _, r := range routes {
		if r.Dst != nil && !r.Dst.IP.IsUnspecified() || r.Type != unix.RTN_UNICAST {
			continue
		}
		hops := []int{r.LinkIndex}
		for _, hop := range r.MultiPath {
			hops = append(hops, hop.LinkIndex)
		}
		for _, index := range hops {
			l, err := c.handle.LinkByIndex(index)
			var none netlink.LinkNotFoundError
			if index == 0 || errors.As(err, &none) {
				continue // the route has other hops, or went with its link
			}
			if err != nil {
				return nil, fmt.Errorf("find link %d: %w", index, err)
			}
			up = append(up, Uplink{l.Attrs().Name, l.Attrs().MTU})
		}
	}
	slices.SortFunc(up, func(a, b Uplink) int { return strings.Compare(a.Name, b.Name) })
	return slices.Compact(up), nil
}

func network(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
