// Package flow forgets connections in a namespace's connection tracking. It is
// the only importer of ti-mo/conntrack and ti-mo/netfilter.
//
// A changed policy needs none of this: it takes effect by the epochs in the
// connections' marks. What needs it is the death of an address, whose next owner
// must not inherit translations, and an epoch that comes round again.
//
// The kernel does the search where it can. Before Linux 6.13 it cannot search by
// address; then the table is read and each match deleted, which is slow for a
// large table but right.
package flow

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/netfilter"
	"golang.org/x/sys/unix"
)

// Conn is a lasting socket into one namespace. It is for one goroutine at a time.
type Conn struct {
	raw   *netfilter.Conn
	netns *os.File
}

// Open connects to the namespace that netns refers to. The file stays open as long
// as the connection does.
func Open(netns *os.File) (*Conn, error) {
	raw, err := netfilter.Dial(&netlink.Config{NetNS: int(netns.Fd())})
	if err != nil {
		return nil, fmt.Errorf("open conntrack socket: %w", err)
	}
	return &Conn{raw, netns}, nil
}

// Close closes the socket.
func (c *Conn) Close() error { return c.raw.Close() }

// ForgetMark forgets all connections whose mark equals mark under mask.
func (c *Conn) ForgetMark(mark, mask uint32) error {
	err := c.flush([]netfilter.Attribute{
		{Type: attributeMark, Data: netfilter.Uint32Bytes(mark)},
		{Type: attributeMarkMask, Data: netfilter.Uint32Bytes(mask)},
	})
	if err != nil {
		return fmt.Errorf("forget connections marked %#x/%#x: %w", mark, mask, err)
	}
	return nil
}

// ForgetAddress forgets all connections that an IPv4 address opened or answers.
func (c *Conn) ForgetAddress(address netip.Addr) error {
	err := errors.Join(c.flush(bySource(tupleOriginal, address)), c.flush(bySource(tupleReply, address)))
	if errors.Is(err, unix.EINVAL) {
		err = c.forgetEach(address)
	}
	if err != nil {
		return fmt.Errorf("forget connections of %s: %w", address, err)
	}
	return nil
}

// The parts of the kernel's interface (nfnetlink_conntrack.h) that the libraries
// do not have.
const (
	messageDelete     = 2 // IPCTNL_MSG_CT_DELETE
	tupleOriginal     = 1 // CTA_TUPLE_ORIG
	tupleReply        = 2 // CTA_TUPLE_REPLY
	attributeMark     = 8
	attributeMarkMask = 21
	attributeFilter   = 25
	tupleIP           = 1 // CTA_TUPLE_IP
	ipSource          = 1 // CTA_IP_V4_SRC
	filterOriginal    = 1 // CTA_FILTER_ORIG_FLAGS
	filterReply       = 2 // CTA_FILTER_REPLY_FLAGS
	filterSourceMatch = 1 // CTA_FILTER_F_CTA_IP_SRC
)

// bySource selects what has the address as source of the tuple.
func bySource(tuple uint16, address netip.Addr) []netfilter.Attribute {
	flags := func(wanted bool) []byte {
		var n uint32
		if wanted {
			n = filterSourceMatch
		}
		return binary.NativeEndian.AppendUint32(nil, n)
	}
	nest := func(kind uint16, children ...netfilter.Attribute) netfilter.Attribute {
		return netfilter.Attribute{Type: kind, Nested: true, Children: children}
	}
	return []netfilter.Attribute{
		nest(tuple, nest(tupleIP, netfilter.Attribute{Type: ipSource, Data: address.AsSlice()})),
		nest(attributeFilter,
			netfilter.Attribute{Type: filterOriginal, Data: flags(tuple == tupleOriginal)},
			netfilter.Attribute{Type: filterReply, Data: flags(tuple == tupleReply)}),
	}
}

// flush asks the kernel to delete what the attributes select.
func (c *Conn) flush(selection []netfilter.Attribute) error {
	request, err := netfilter.MarshalNetlink(netfilter.Header{
		SubsystemID: netfilter.NFSubsysCTNetlink, MessageType: messageDelete,
		Family: netfilter.ProtoIPv4, Flags: netlink.Request | netlink.Acknowledge,
		Version: 1, // take the family for part of the selection
	}, selection)
	if err != nil {
		return err
	}
	_, err = c.raw.Query(request)
	return err
}

// forgetEach is for kernels that cannot search by address.
func (c *Conn) forgetEach(address netip.Addr) error {
	conn, err := conntrack.Dial(&netlink.Config{NetNS: int(c.netns.Fd())})
	if err != nil {
		return err
	}
	flows, err := conn.DumpFilter(conntrack.NewFilter().Family(netfilter.ProtoIPv4), nil)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	for _, f := range flows {
		if f.TupleOrig.IP.SourceAddress != address && f.TupleReply.IP.SourceAddress != address {
			continue
		}
		if err := conn.Delete(f); err != nil && !errors.Is(err, unix.ENOENT) {
			return errors.Join(err, conn.Close())
		}
	}
	return conn.Close()
}
