package router_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network"
)

// attacks is how many kinds there are: it does not shrink.
const attacks = 23

// repeats is how many packets each attack sends.
const repeats = 5

// attack is what a tenant sends who is root in its namespace and writes whole
// frames; everything about a frame that is not said is honest.
type attack struct {
	name    string
	counter string // that tells of each packet
	frames  [][]byte
}

const (
	evilAddress = "10.0.1.10"
	goodAddress = "10.0.1.11"
	nobody      = "10.0.1.99"
	openPort    = 80
	shutPort    = 9999
)

// frame puts Ethernet around a payload, to the router.
func frame(from net.HardwareAddr, kind uint16, payload []byte) []byte {
	head := append(append([]byte{}, network.RouterMAC()...), from...)
	return append(binary.BigEndian.AppendUint16(head, kind), payload...)
}

func honest(payload []byte) []byte { return frame(network.InstanceMAC("evil"), unix.ETH_P_IP, payload) }

// ip4 puts an IPv4 header before a payload. Fragment is the header's field: flags
// and offset.
func ip4(from, to string, protocol byte, fragment uint16, payload []byte) []byte {
	h := []byte{0x45, 0, 0, 0, 0x12, 0x34, 0, 0, 64, protocol, 0, 0}
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(payload)))
	binary.BigEndian.PutUint16(h[6:], fragment)
	h = append(append(h, netip.MustParseAddr(from).AsSlice()...), netip.MustParseAddr(to).AsSlice()...)
	binary.BigEndian.PutUint16(h[10:], checksum(h))
	return append(h, payload...)
}

func checksum(parts ...[]byte) uint16 {
	var sum uint32
	for _, p := range parts {
		for i := 0; i+1 < len(p); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(p[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// udp has no checksum of its own, which IPv4 allows.
func udp(port uint16, payload []byte) []byte {
	h := binary.BigEndian.AppendUint16([]byte{0x30, 0x39}, port)
	h = binary.BigEndian.AppendUint16(h, uint16(8+len(payload)))
	return append(append(h, 0, 0), payload...)
}

func tcp(from, to string, port uint16, flags byte) []byte {
	h := binary.BigEndian.AppendUint16([]byte{0x30, 0x39}, port)
	h = append(h, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0)
	pseudo := append(netip.MustParseAddr(from).AsSlice(), netip.MustParseAddr(to).AsSlice()...)
	binary.BigEndian.PutUint16(h[16:], checksum(append(pseudo, 0, unix.IPPROTO_TCP, 0, byte(len(h))), h))
	return h
}

func icmp(kind, code byte, payload []byte) []byte {
	m := append([]byte{kind, code, 0, 0, 10, 0, 1, 10}, payload...)
	binary.BigEndian.PutUint16(m[2:], checksum(m))
	return m
}

// arp says or asks who has an address.
func arp(operation uint16, from net.HardwareAddr, sender, target string) []byte {
	m := binary.BigEndian.AppendUint16([]byte{0, 1, 8, 0, 6, 4}, operation)
	m = append(append(m, from...), netip.MustParseAddr(sender).AsSlice()...)
	return append(append(m, make([]byte, 6)...), netip.MustParseAddr(target).AsSlice()...)
}

// ip6 is an ICMPv6 message to all nodes.
func ip6(kind byte) []byte {
	h := []byte{0x60, 0, 0, 0, 0, 8, unix.IPPROTO_ICMPV6, 255}
	h = append(append(h, netip.MustParseAddr("fe80::1").AsSlice()...), netip.MustParseAddr("ff02::1").AsSlice()...)
	return append(h, kind, 0, 0, 0, 0, 0, 0, 0)
}

func attackList(neighbour *network.VPC) []attack {
	evil, good := network.InstanceMAC("evil"), network.InstanceMAC("good")
	to := func(address string, port uint16) []byte {
		return ip4(evilAddress, address, unix.IPPROTO_UDP, 0, udp(port, nil))
	}
	tagged := append([]byte{0, 5, 8, 0}, to(goodAddress, openPort)...)
	one := func(name, counter string, f []byte) attack { return attack{name, counter, [][]byte{f}} }
	long := udp(shutPort, make([]byte, 24))
	const more = 0x2000
	return []attack{
		one("a neighbour's address as source", "spoofed", honest(ip4(goodAddress, goodAddress, unix.IPPROTO_UDP, 0, udp(openPort, nil)))),
		one("nobody's address as source", "spoofed", honest(ip4(nobody, goodAddress, unix.IPPROTO_UDP, 0, udp(openPort, nil)))),
		one("an address of the internet as source", "spoofed", honest(ip4(outside, goodAddress, unix.IPPROTO_UDP, 0, udp(openPort, nil)))),
		one("the gateway's address as source", "spoofed", honest(ip4(network.Gateway().String(), goodAddress, unix.IPPROTO_UDP, 0, udp(openPort, nil)))),
		one("a neighbour's MAC as source", "spoofed", frame(good, unix.ETH_P_IP, to(goodAddress, openPort))),
		one("the router's MAC as source", "spoofed", frame(network.RouterMAC(), unix.ETH_P_IP, to(goodAddress, openPort))),
		one("ARP asks for a neighbour", "spoofed", frame(evil, unix.ETH_P_ARP, arp(1, evil, evilAddress, goodAddress))),
		one("ARP claims the gateway", "spoofed", frame(evil, unix.ETH_P_ARP, arp(2, evil, network.Gateway().String(), goodAddress))),
		one("ND claims an address", "spoofed", frame(evil, unix.ETH_P_IPV6, ip6(136))),
		one("a router advertisement", "spoofed", frame(evil, unix.ETH_P_IPV6, ip6(134))),
		one("DHCP from no address", "spoofed", honest(ip4("0.0.0.0", "255.255.255.255", unix.IPPROTO_UDP, 0, udp(67, nil)))),
		one("a VLAN tag", "spoofed", frame(evil, unix.ETH_P_8021Q, tagged)),
		one("two VLAN tags", "spoofed", frame(evil, unix.ETH_P_8021AD, append([]byte{0, 5, 0x81, 0}, tagged...))),
		one("an Ethernet protocol of nobody", "spoofed", frame(evil, 0x88b5, []byte("hello"))),
		one("a port that no rule opens", "refused", honest(to(goodAddress, shutPort))),
		{"fragments of what no rule opens", "refused", [][]byte{
			honest(ip4(evilAddress, goodAddress, unix.IPPROTO_UDP, more, long[:16])), honest(ip4(evilAddress, goodAddress, unix.IPPROTO_UDP, 2, long[16:])),
		}},
		{"fragments that hide the port", "refused", [][]byte{
			honest(ip4(evilAddress, goodAddress, unix.IPPROTO_UDP, 1, long[8:])), honest(ip4(evilAddress, goodAddress, unix.IPPROTO_UDP, more, long[:8])),
		}},
		one("an IP protocol of nobody", "refused", honest(ip4(evilAddress, goodAddress, 253, 0, []byte("hello, there")))),
		one("an acknowledgement without a connection", "refused", honest(ip4(evilAddress, goodAddress, unix.IPPROTO_TCP, 0, tcp(evilAddress, goodAddress, shutPort, 0x10)))),
		one("a redirect", "invalid", honest(ip4(evilAddress, goodAddress, unix.IPPROTO_ICMP, 0, icmp(5, 1, ip4(goodAddress, outside, unix.IPPROTO_UDP, 0, udp(53, nil)))))),
		one("the operator's network", "protected", honest(to(management, 22))),
		one("a forged overlay packet", "protected", honest(to(outside, 4789))),
		one("another VPC's router", "tenant_refused", honest(to(neighbour.Transit.Router.String(), 53))),
	}
}

// What a tenant sends from inside is refused, counted, and seen by nobody.
func TestAttacksFromInsideATenant(t *testing.T) { inBothOrders(t, attacksFromInsideATenant) }

func attacksFromInsideATenant(t *testing.T, w *world) {
	v, neighbour := w.vpc("vpca", 0), w.vpc("vpcb", 1)
	v.Groups["some"] = group([]spec.Rule{{Action: "accept", Protocol: "udp", Ports: "80", Remote: "any"}}, "0.0.0.0/0")
	w.endpoint(v, "evil", evilAddress, "open")
	w.endpoint(v, "good", goodAddress, "some")
	w.endpoint(neighbour, "nbr1", evilAddress, "open")
	w.converge(v.UID, v)
	w.converge(neighbour.UID, neighbour)
	w.host([]*network.VPC{v, neighbour})
	seen := w.sniff("good")
	list := attackList(neighbour)
	if len(list) < attacks {
		t.Errorf("%d attacks, there were %d", len(list), attacks)
	}
	for _, a := range list {
		t.Run(a.name, func(t *testing.T) {
			before := w.counted(v.UID, a.counter)
			for range repeats {
				w.inject("evil", a.frames)
			}
			if got := w.counted(v.UID, a.counter) - before; got != repeats {
				t.Errorf("%s counts %d of %d packets", a.counter, got, repeats)
			}
		})
	}
	w.inject("evil", [][]byte{honest(ip4(evilAddress, goodAddress, unix.IPPROTO_UDP, 0, udp(openPort, []byte("honest"))))})
	if got := seen(); len(got) != 1 || string(got[0]) != "honest" {
		t.Errorf("the neighbour received %q, want only the honest packet", got)
	}
	t.Logf("%d attacks, %d packets each: all refused and counted", len(list), repeats)
}

// inject writes frames to an instance's link from inside.
func (w *world) inject(instance string, frames [][]byte) {
	w.t.Helper()
	w.in(instance, func() error {
		eth0, err := net.InterfaceByName(network.InstanceLinkName)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, f := range frames {
			if err := unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: eth0.Index}); err != nil {
				return err
			}
		}
		return nil
	})
}

// sniff notes all that reaches an instance; what it returns waits for one
// packet and gives what there was until then, without the headers of UDP over IP.
func (w *world) sniff(instance string) func() [][]byte {
	const headers = 14 + 20 + 8
	var fd int
	all := int(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL)))
	w.in(instance, func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
		return err
	})
	w.t.Cleanup(func() { unix.Close(fd) })
	return func() [][]byte {
		var packets [][]byte
		buffer := make([]byte, 2048)
		wait := unix.NsecToTimeval(patience.Nanoseconds())
		w.must(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait))
		n, from, err := unix.Recvfrom(fd, buffer, 0)
		for ; err == nil; n, from, err = unix.Recvfrom(fd, buffer, unix.MSG_DONTWAIT) {
			if from.(*unix.SockaddrLinklayer).Pkttype != unix.PACKET_OUTGOING {
				packets = append(packets, append([]byte{}, buffer[min(headers, n):n]...))
			}
		}
		return packets
	}
}

// counted reads a counter of the VPC's rules, or of the host's.
func (w *world) counted(vpc spec.UID, name string) int {
	w.t.Helper()
	for _, listing := range []string{w.rules(vpc), w.run("nft", "list", "ruleset")} {
		found := regexp.MustCompile(`counter ` + name + ` \{\s+packets (\d+)`).FindStringSubmatch(listing)
		if found != nil {
			n, err := strconv.Atoi(found[1])
			w.must(err)
			return n
		}
	}
	w.t.Fatalf("no counter %s", name)
	return 0
}
