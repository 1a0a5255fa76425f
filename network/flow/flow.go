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
	err := errors.Join(
		c.flush(selection(part{source: address}, part{})),
		c.flush(selection(part{}, part{source: address})))
	if errors.Is(err, unix.EINVAL) {
		err = c.forgetEach(func(f conntrack.Flow) bool {
			return f.TupleOrig.IP.SourceAddress == address || f.TupleReply.IP.SourceAddress == address
		})
	}
	if err != nil {
		return fmt.Errorf("forget connections of %s: %w", address, err)
	}
	return nil
}

// ForgetPort forgets all connections of a protocol to a port, whatever address
// they were opened to, that an IPv4 address answers.
func (c *Conn) ForgetPort(protocol uint8, port uint16, answers netip.Addr) error {
	err := c.flush(selection(part{protocol: protocol, port: port}, part{source: answers}))
	if errors.Is(err, unix.EINVAL) {
		err = c.forgetEach(func(f conntrack.Flow) bool {
			to := f.TupleOrig.Proto
			return to.Protocol == protocol && to.DestinationPort == port && f.TupleReply.IP.SourceAddress == answers
		})
	}
	if err != nil {
		return fmt.Errorf("forget connections to port %d that %s answers: %w", port, answers, err)
	}
	return nil
}

// Translation is where a connection's destination was translated to.
type Translation struct {
	Protocol uint8
	Port     uint16         // that it was opened to
	To       netip.AddrPort // who answers
}

// Translations lists the IPv4 connections whose destination was translated, each
// translation once. Before Linux 5.15 the whole table is read for it.
func (c *Conn) Translations() ([]Translation, error) {
	conn, err := conntrack.Dial(&netlink.Config{NetNS: int(c.netns.Fd())})
	if err != nil {
		return nil, fmt.Errorf("open conntrack socket: %w", err)
	}
	flows, err := conn.DumpFilter(conntrack.NewFilter().Family(netfilter.ProtoIPv4).Status(conntrack.StatusDstNAT), nil)
	if err = errors.Join(err, conn.Close()); err != nil {
		return nil, fmt.Errorf("list translated connections: %w", err)
	}
	known := make(map[Translation]bool)
	var all []Translation
	for _, f := range flows {
		t := Translation{
			Protocol: f.TupleOrig.Proto.Protocol, Port: f.TupleOrig.Proto.DestinationPort,
			To: netip.AddrPortFrom(f.TupleReply.IP.SourceAddress, f.TupleReply.Proto.SourcePort),
		}
		if f.Status&conntrack.StatusDstNAT != 0 && !known[t] {
			known[t] = true
			all = append(all, t)
		}
	}
	return all, nil
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
	tupleProto        = 2 // CTA_TUPLE_PROTO
	ipSource          = 1 // CTA_IP_V4_SRC
	protoNumber       = 1 // CTA_PROTO_NUM
	protoDestination  = 3 // CTA_PROTO_DST_PORT
	filterOriginal    = 1 // CTA_FILTER_ORIG_FLAGS
	filterReply       = 2 // CTA_FILTER_REPLY_FLAGS
	matchSource       = 1 << 0
	matchProtocol     = 1 << 3
	matchDestination  = 1 << 5 // the port
)

// part is what is asked of one direction of a connection; zero values ask nothing.
type part struct {
	source   netip.Addr
	protocol uint8
	port     uint16 // the destination's
}

// selection asks for both directions.
func selection(original, reply part) []netfilter.Attribute {
	of, originalFlags := original.attributes()
	re, replyFlags := reply.attributes()
	var all []netfilter.Attribute
	if len(of) > 0 {
		all = append(all, nest(tupleOriginal, of...))
	}
	if len(re) > 0 {
		all = append(all, nest(tupleReply, re...))
	}
	return append(all, nest(attributeFilter,
		netfilter.Attribute{Type: filterOriginal, Data: binary.NativeEndian.AppendUint32(nil, originalFlags)},
		netfilter.Attribute{Type: filterReply, Data: binary.NativeEndian.AppendUint32(nil, replyFlags)}))
}

func nest(kind uint16, children ...netfilter.Attribute) netfilter.Attribute {
	return netfilter.Attribute{Type: kind, Nested: true, Children: children}
}

// attributes are a part's, and which of them the kernel is to compare.
func (p part) attributes() ([]netfilter.Attribute, uint32) {
	var all []netfilter.Attribute
	var flags uint32
	if p.source.IsValid() {
		all = append(all, nest(tupleIP, netfilter.Attribute{Type: ipSource, Data: p.source.AsSlice()}))
		flags |= matchSource
	}
	if p.protocol != 0 {
		all = append(all, nest(tupleProto,
			netfilter.Attribute{Type: protoNumber, Data: []byte{p.protocol}},
			netfilter.Attribute{Type: protoDestination, Data: netfilter.Uint16Bytes(p.port)}))
		flags |= matchProtocol | matchDestination
	}
	return all, flags
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
func (c *Conn) forgetEach(which func(conntrack.Flow) bool) error {
	conn, err := conntrack.Dial(&netlink.Config{NetNS: int(c.netns.Fd())})
	if err != nil {
		return err
	}
	flows, err := conn.DumpFilter(conntrack.NewFilter().Family(netfilter.ProtoIPv4), nil)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	for _, f := range flows {
		if !which(f) {
			continue
		}
		if err := conn.Delete(f); err != nil && !errors.Is(err, unix.ENOENT) {
			return errors.Join(err, conn.Close())
		}
	}
	return conn.Close()
}
