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

func config(netns *os.File) *netlink.Config {
	if netns == nil {
		return nil
	}
	return &netlink.Config{NetNS: int(netns.Fd())}
}

// ForgetMark forgets all connections whose mark equals mark under mask.
func ForgetMark(netns *os.File, mark, mask uint32) error {
	conn, err := conntrack.Dial(config(netns))
	if err != nil {
		return fmt.Errorf("open conntrack socket: %w", err)
	}
	filter := conntrack.NewFilter().Mark(mark).MarkMask(mask)
	if err := errors.Join(conn.FlushFilter(filter), conn.Close()); err != nil {
		return fmt.Errorf("forget connections marked %#x/%#x: %w", mark, mask, err)
	}
	return nil
}

// ForgetAddress forgets all connections that an IPv4 address opened or answers.
func ForgetAddress(netns *os.File, address netip.Addr) error {
	conn, err := netfilter.Dial(config(netns))
	if err != nil {
		return fmt.Errorf("open conntrack socket: %w", err)
	}
	err = errors.Join(flush(conn, tupleOriginal, address), flush(conn, tupleReply, address))
	if errors.Is(err, unix.EINVAL) {
		err = forgetEach(netns, address)
	}
	if err := errors.Join(err, conn.Close()); err != nil {
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
	attributeFilter   = 25
	tupleIP           = 1 // CTA_TUPLE_IP
	ipSource          = 1 // CTA_IP_V4_SRC
	filterOriginal    = 1 // CTA_FILTER_ORIG_FLAGS
	filterReply       = 2 // CTA_FILTER_REPLY_FLAGS
	filterSourceMatch = 1 // CTA_FILTER_F_CTA_IP_SRC
)

// flush asks the kernel to delete what has the address as source of the tuple.
func flush(conn *netfilter.Conn, tuple uint16, address netip.Addr) error {
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
	request, err := netfilter.MarshalNetlink(netfilter.Header{
		SubsystemID: netfilter.NFSubsysCTNetlink, MessageType: messageDelete,
		Family: netfilter.ProtoIPv4, Flags: netlink.Request | netlink.Acknowledge, Version: 1,
	}, []netfilter.Attribute{
		nest(tuple, nest(tupleIP, netfilter.Attribute{Type: ipSource, Data: address.AsSlice()})),
		nest(attributeFilter,
			netfilter.Attribute{Type: filterOriginal, Data: flags(tuple == tupleOriginal)},
			netfilter.Attribute{Type: filterReply, Data: flags(tuple == tupleReply)}),
	})
	if err != nil {
		return err
	}
	_, err = conn.Query(request)
	return err
}

// forgetEach is for kernels that cannot search by address.
func forgetEach(netns *os.File, address netip.Addr) error {
	conn, err := conntrack.Dial(config(netns))
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
