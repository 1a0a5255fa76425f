package link

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Mirror is the links of a namespace, and addresses on them, as the kernel has
// them. It subscribes to the kernel's events before it reads, and then reads again
// what an event names: a look at which nothing happened costs one system call,
// however many links there are.
//
// Events only say where to look; what is there is asked for. When more happened
// than the socket holds, everything is read again.
//
// Of a link that is down, or whose other end is, not every change is told (a note,
// the namespace that its other end goes to): these are read at each look. That
// the other end went down the kernel may tell a second late.
//
// It is for one goroutine at a time.
type Mirror struct {
	conn      *Conn
	events    *nl.NetlinkSocket
	buffer    []byte
	complete  bool
	version   uint64
	links     map[int]State
	names     map[string]int
	restless  map[int]bool           // links that are read at each look
	addresses map[int][]netip.Prefix // of links that were asked for
}

// eventBytes bounds what the kernel keeps between two looks; it is a limit, not
// memory that is held.
const eventBytes = 1 << 20

// NewMirror begins to follow the links of the namespace that conn leads to, netns
// being the same as conn was opened with. Closing it leaves conn open.
func NewMirror(conn *Conn, netns *os.File) (*Mirror, error) {
	inside := vnetns.None()
	if netns != nil {
		inside = vnetns.NsHandle(netns.Fd())
	}
	events, err := nl.SubscribeAt(inside, vnetns.None(), unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR)
	if err != nil {
		return nil, fmt.Errorf("subscribe to link events: %w", err)
	}
	if err := events.SetReceiveBufferSize(eventBytes, true); err != nil {
		events.Close()
		return nil, fmt.Errorf("enlarge socket of link events: %w", err)
	}
	return &Mirror{conn: conn, events: events, buffer: make([]byte, os.Getpagesize()*16)}, nil
}

// Close ends the subscription.
func (m *Mirror) Close() { m.events.Close() }

// Look brings the mirror up to date. The number it returns is another one when
// anything happened since the look before.
func (m *Mirror) Look() (version uint64, err error) {
	touched, lost, err := m.drain()
	if err != nil {
		m.complete = false
		return 0, err
	}
	if lost || !m.complete {
		m.version++
		return m.version, m.readAll()
	}
	if len(touched) > 0 {
		m.version++
	}
	for index := range touched {
		delete(m.addresses, index)
	}
	for index := range m.restless {
		touched[index] = true
	}
	err = m.readAgain(touched)
	return m.version, err
}

// Links are all links by name, as of the last look.
func (m *Mirror) Links() map[string]State {
	links := make(map[string]State, len(m.links))
	for _, l := range m.links {
		links[l.Name] = l
	}
	return links
}

// Get is one link as of the last look; nil when there is none of that name.
func (m *Mirror) Get(name string) *State {
	index, there := m.names[name]
	if !there {
		return nil
	}
	l := m.links[index]
	return &l
}

// Addresses are the IPv4 addresses of a link.
func (m *Mirror) Addresses(name string) ([]netip.Prefix, error) {
	index, there := m.names[name]
	if !there {
		return nil, nil
	}
	if known, there := m.addresses[index]; there {
		return known, nil
	}
	addresses, err := m.conn.Addresses(name)
	if err == nil {
		m.addresses[index] = addresses
	}
	return addresses, err
}

func (m *Mirror) readAll() error {
	m.complete = false
	links, err := m.conn.List()
	if err != nil {
		return err
	}
	m.links, m.names, m.restless, m.addresses = map[int]State{}, map[string]int{}, map[int]bool{}, map[int][]netip.Prefix{}
	for _, l := range links {
		m.put(l)
	}
	m.complete = true
	return nil
}

// readAgain reads the links with these numbers. All of them are forgotten first,
// because two may have changed their names with each other.
func (m *Mirror) readAgain(touched map[int]bool) error {
	before := make(map[int]State, len(touched))
	for index := range touched {
		before[index] = m.links[index]
		m.forget(index)
	}
	for index := range touched {
		l, err := m.conn.at(index)
		if err != nil {
			m.complete = false
			return err
		}
		if l != nil {
			m.put(*l)
		}
		if m.links[index] != before[index] {
			m.version++
		}
	}
	return nil
}

func (m *Mirror) forget(index int) {
	if name := m.links[index].Name; m.names[name] == index {
		delete(m.names, name)
	}
	delete(m.links, index)
	delete(m.restless, index)
}

func (m *Mirror) put(l State) {
	m.links[l.Index] = l
	m.names[l.Name] = l.Index
	if l.restless() {
		m.restless[l.Index] = true
	}
}

// drain takes all events off the socket without waiting, and says which links
// they are about.
func (m *Mirror) drain() (touched map[int]bool, lost bool, err error) {
	touched = map[int]bool{}
	for {
		n, _, err := unix.Recvfrom(m.events.GetFd(), m.buffer, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return touched, lost, nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOBUFS): // the kernel had to leave some out
			lost = true
			continue
		case err != nil:
			return nil, false, fmt.Errorf("read link events: %w", err)
		}
		messages, err := syscall.ParseNetlinkMessage(m.buffer[:n])
		if err != nil {
			return nil, false, fmt.Errorf("read link events: %w", err)
		}
		for _, message := range messages {
			if len(message.Data) >= unix.SizeofIfAddrmsg {
				touched[subject(message.Data)] = true
			}
		}
	}
}

// subject is the link that an event is about: a link and an address have its number
// at the same place.
func subject(data []byte) int { return int(int32(nl.NativeEndian().Uint32(data[4:8]))) }

// at reads the link with a number; nil when there is none.
func (c *Conn) at(index int) (*State, error) {
	l, err := c.handle.LinkByIndex(index)
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find link %d: %w", index, err)
	}
	state := stateOf(l)
	return &state, nil
}

// restless says whether not all changes of the link are told.
func (s State) restless() bool { return s.cable && (!s.Up || !s.carrier) }
