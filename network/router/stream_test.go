package router_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network"
	"github.com/gpuhost/gpuhost/network/netns"
)

const (
	flowSink   = "10.0.0.10"
	flowPort   = 7000 // always allowed
	closedPort = 7001 // never
	perProbe   = 20
	window     = 64 // datagrams under way
)

// streams are two streams of datagrams from cli1 to web1: one that every version
// of the rules allows, one that none does. The first also flows while rules change.
type streams struct {
	allowed, denied         net.Conn
	sent, received, leaked  atomic.Int64
	tried                   int64
	stop                    chan struct{}
	senders, receivers      sync.WaitGroup
	allowedSink, deniedSink *net.UDPConn
}

func (w *world) streams() *streams {
	s := &streams{stop: make(chan struct{}), allowedSink: w.sink("web1", flowPort), deniedSink: w.sink("web1", closedPort)}
	w.in("cli1", func() (err error) {
		if s.allowed, err = net.Dial("udp4", net.JoinHostPort(flowSink, fmt.Sprint(flowPort))); err != nil {
			return err
		}
		s.denied, err = net.Dial("udp4", net.JoinHostPort(flowSink, fmt.Sprint(closedPort)))
		return err
	})
	s.receivers.Go(func() { count(s.allowedSink, &s.received) })
	s.receivers.Go(func() { count(s.deniedSink, &s.leaked) })
	s.senders.Go(s.flow)
	return s
}

// count counts datagrams until the socket's deadline.
func count(l *net.UDPConn, n *atomic.Int64) {
	buffer := make([]byte, 64)
	for {
		if _, err := l.Read(buffer); err != nil {
			return
		}
		n.Add(1)
	}
}

// flow sends the allowed stream, a datagram at each beat unless too many are under way.
func (s *streams) flow() {
	beat := time.NewTicker(100 * time.Microsecond)
	defer beat.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-beat.C:
		}
		if s.sent.Load()-s.received.Load() >= window {
			continue
		}
		if _, err := s.allowed.Write([]byte("x")); err == nil {
			s.sent.Add(1)
		}
	}
}

// probe sends on the denied stream, right after a change.
func (s *streams) probe(w *world) {
	w.t.Helper()
	for range perProbe {
		_, err := s.denied.Write([]byte("x"))
		if err != nil && !errors.Is(err, unix.EPERM) {
			w.t.Fatal(err)
		}
		s.tried++
	}
}

// end stops the streams and says how many were sent and what became of them.
func (s *streams) end(w *world) (sent, lost, tried, leaked int64) {
	close(s.stop)
	s.senders.Wait()
	deadline := time.Now().Add(patience)
	for s.received.Load() < s.sent.Load() && time.Now().Before(deadline) {
		w.must(s.allowedSink.SetReadDeadline(deadline))
	}
	w.must(errors.Join(s.allowedSink.SetReadDeadline(time.Now()), s.deniedSink.SetReadDeadline(time.Now())))
	s.receivers.Wait()
	w.must(errors.Join(s.allowed.Close(), s.denied.Close()))
	return s.sent.Load(), s.sent.Load() - s.received.Load(), s.tried, s.leaked.Load()
}

// flows opens n connections to web1 from two instances, one datagram each, and
// says how many the router tracks.
func (w *world) flows(v *network.VPC, n int) int {
	w.t.Helper()
	w.inRouter(v.UID, func() error {
		return os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_udp_timeout", []byte("3600"), 0)
	})
	for _, from := range []struct {
		uid     spec.UID
		address string
	}{{"cli1", "10.0.0.11"}, {"cli2", "10.0.0.12"}} {
		frames := make([][]byte, n/2)
		for i := range frames {
			datagram := udp(flowPort, nil)
			binary.BigEndian.PutUint16(datagram, uint16(1024+i))
			frames[i] = frame(network.InstanceMAC(from.uid), unix.ETH_P_IP, ip4(from.address, flowSink, unix.IPPROTO_UDP, 0, datagram))
		}
		w.inject(string(from.uid), frames)
	}
	tracked := 0
	w.inRouter(v.UID, func() error {
		text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		if err == nil {
			_, err = fmt.Sscan(strings.TrimSpace(string(text)), &tracked)
		}
		return err
	})
	return tracked
}

// inRouter runs fn inside a router namespace.
func (w *world) inRouter(vpc spec.UID, fn func() error) {
	w.t.Helper()
	f, err := os.Open(filepath.Join(w.dir, "netns", "vpc-"+string(vpc)))
	w.must(err)
	defer f.Close()
	w.must(netns.Do(f, fn))
}

// A hundred changes of the rules that decide about both, under traffic.
func TestChangesLoseNothingAndLeakNothing(t *testing.T) {
	inBothOrders(t, func(t *testing.T, w *world) {
		v := w.loaded(10)
		change(v, -1)
		w.converge(v.UID, v)
		live := w.flows(v, 1000)
		s := w.streams()
		for i := range 100 {
			change(v, i)
			w.applyRules(v)
			s.probe(w)
		}
		sent, lost, tried, leaked := s.end(w)
		if sent == 0 || lost != 0 || leaked != 0 || live < 1000 {
			t.Errorf("%d of %d allowed lost, %d of %d denied leaked, %d flows live", lost, sent, leaked, tried, live)
		}
	})
}
