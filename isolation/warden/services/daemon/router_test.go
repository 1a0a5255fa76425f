package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// resolverAddress is local in every namespace whose loopback is up.
const resolverAddress = "127.0.0.53:53"

// router is a network namespace of its own, as a VPC has one, and a thread in it.
type router struct {
	work chan func()
}

func newRouter(t testing.TB) *router {
	t.Helper()
	r := &router{work: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = loopbackUp()
		}
		ready <- err
		for f := range r.work {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(r.work) })
	return r
}

// do runs f in the namespace.
func (r *router) do(f func()) {
	done := make(chan struct{})
	r.work <- func() {
		defer close(done)
		f()
	}
	<-done
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}

// sockets are what the agent passes: made in the namespace, bound to port 53.
func (r *router) sockets(t testing.TB) (udp, tcp *os.File) {
	t.Helper()
	var failed error
	r.do(func() { udp, tcp, failed = makeSockets() })
	if failed != nil {
		t.Fatal(failed)
	}
	return udp, tcp
}

func makeSockets() (udp, tcp *os.File, err error) {
	packets, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(resolverAddress)))
	if err != nil {
		return nil, nil, fmt.Errorf("listen UDP: %w", err)
	}
	defer packets.Close()
	listener, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(netip.MustParseAddrPort(resolverAddress)))
	if err != nil {
		return nil, nil, fmt.Errorf("listen TCP: %w", err)
	}
	defer listener.Close()
	if udp, err = packets.File(); err != nil {
		return nil, nil, err
	}
	tcp, err = listener.File()
	return udp, tcp, err
}

// upstream is the host's resolver, with the habits of good and bad ones.
func upstream(t testing.TB) string {
	t.Helper()
	packets, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp4", packets.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, server := range []*dns.Server{{PacketConn: packets}, {Listener: listener}} {
		server.Handler = dns.HandlerFunc(answerUpstream)
		go server.ActivateAndServe()
		t.Cleanup(func() { server.Shutdown() })
	}
	return packets.LocalAddr().String()
}

func answerUpstream(w dns.ResponseWriter, query *dns.Msg) {
	m := new(dns.Msg).SetReply(query)
	name := query.Question[0].Name
	header := dns.RR_Header{Name: name, Rrtype: query.Question[0].Qtype, Class: dns.ClassINET, Ttl: 300}
	switch {
	case name == "large.example." && w.RemoteAddr().Network() == "udp":
		m.Truncated = true
	case name == "large.example.":
		m.Answer = []dns.RR{&dns.TXT{Hdr: header, Txt: []string{strings.Repeat("x", 200)}}}
	case name == "broken.example.":
		m.Rcode = dns.RcodeRefused
	case name == "spoofed.example.":
		m.Question[0].Name = "other.example."
	default:
		m.Answer = []dns.RR{&dns.A{Hdr: header, A: net.IPv4(203, 0, 113, 7)}}
	}
	_ = w.WriteMsg(m)
}

func addrs(texts ...string) (list []netip.Addr) {
	for _, text := range texts {
		list = append(list, netip.MustParseAddr(text))
	}
	return list
}
