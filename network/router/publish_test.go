package router_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network"
)

const port = 9000

// publish makes exactly one of some endpoints publish the port, by UDP and TCP.
func publish(to *network.Endpoint, all ...*network.Endpoint) {
	for _, e := range all {
		e.Publish = nil
		if e == to {
			e.Publish = []spec.Publish{{HostPort: port, Port: port, Protocol: "udp"}, {HostPort: port, Port: port, Protocol: "tcp"}}
		}
	}
}

// A port that moves serves its new owner, also a client that never stops sending.
func TestAMovedPortLeavesItsFormerOwner(t *testing.T) {
	w := newWorld(t, guardFirst)
	a, b := w.vpc("vpca", 0), w.vpc("vpcb", 1)
	w.endpoint(a, "aaa1", "10.0.1.10", "open")
	w.endpoint(a, "aaa2", "10.0.1.11", "open")
	w.endpoint(b, "bbb1", "10.0.1.10", "open")
	owners := []*network.Endpoint{&a.Endpoints[0], &a.Endpoints[1], &b.Endpoints[0]}
	sinks := map[*network.Endpoint]*net.UDPConn{}
	for _, e := range owners {
		sinks[e] = w.sink(string(e.Instance), port)
	}
	move := func(to *network.Endpoint) {
		publish(to, owners...)
		w.converge(a.UID, a)
		w.converge(b.UID, b)
		w.host([]*network.VPC{a, b})
	}
	move(owners[0])
	var client net.Conn
	w.in("internet", func() (err error) {
		client, err = net.DialUDP("udp4", &net.UDPAddr{Port: 5555}, &net.UDPAddr{IP: net.ParseIP(hostAddress), Port: port})
		return err
	})
	defer client.Close()
	for i, e := range append(owners, owners[0]) {
		move(e)
		if _, err := client.Write(make([]byte, i+1)); err != nil {
			t.Fatal(err)
		}
		if got := w.receive(sinks[e], 1); got[0] != i+1 {
			t.Errorf("move %d: %s received a datagram of %d bytes, want %d", i, e.Instance, got[0], i+1)
		}
	}
}

// newPublished is a world in which web1 of the one VPC answers on a port of the host.
func newPublished(t *testing.T) (*world, *network.VPC) {
	t.Helper()
	w := newWorld(t, guardFirst)
	v := w.vpc("vpca", 0)
	w.endpoint(v, "web1", "10.0.1.10", "open")
	publish(&v.Endpoints[0], &v.Endpoints[0])
	w.converge(v.UID, v)
	w.host([]*network.VPC{v})
	w.serve("web1", port)
	return w, v
}

// A port that is no longer published serves nobody, also who was connected.
func TestAnUnpublishedPortServesNobody(t *testing.T) {
	for name, unpublish := range map[string]func(w *world, v *network.VPC){
		"the host's first": func(w *world, v *network.VPC) { w.host([]*network.VPC{v}); w.converge(v.UID, v) },
		"the VPC's first":  func(w *world, v *network.VPC) { w.converge(v.UID, v); w.host([]*network.VPC{v}) },
		"only the host's":  func(w *world, v *network.VPC) { w.host([]*network.VPC{v}) },
		"only the VPC's":   func(w *world, v *network.VPC) { w.converge(v.UID, v) },
	} {
		t.Run(name, func(t *testing.T) {
			w, v := newPublished(t)
			live, _, err := w.dial("internet", hostAddress, port)
			w.must(err)
			defer live.Close()
			inside, _, err := w.dial("web1", "10.0.1.10", port)
			w.must(err)
			defer inside.Close()
			publish(nil, &v.Endpoints[0])
			unpublish(w, v)
			if echoes(live, refusal) {
				t.Error("a connection to a port that is no longer published goes on")
			}
			if !echoes(inside, patience) {
				t.Error("a connection inside was cut")
			}
		})
	}
}

// A process that ends between the transaction that takes a port away and the
// forgetting of its connections leaves them to the next, which forgets those and no
// others.
func TestAConnectionIsForgottenByTheNextProcess(t *testing.T) {
	for name, places := range map[string][2]bool{"in both": {true, true}, "in the host": {true, false}, "in the VPC": {false, true}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, guardFirst)
			v := w.vpc("vpca", 0)
			w.endpoint(v, "web1", "10.0.1.10", "open")
			w.endpoint(v, "web2", "10.0.1.11", "open")
			publish(&v.Endpoints[0], &v.Endpoints[0])
			v.Endpoints[1].Publish = []spec.Publish{{HostPort: 9001, Port: port, Protocol: "tcp"}}
			w.converge(v.UID, v)
			w.host([]*network.VPC{v})
			w.serve("web1", port)
			w.serve("web2", port)
			live := w.connect("internet", hostAddress, port)
			other := w.connect("internet", hostAddress, 9001)
			inside := w.connect("web1", "10.0.1.11", port)
			w.must(w.kernel.Close())
			publish(nil, &v.Endpoints[0])
			if places[0] { // what the transactions did
				w.run("nft", "delete", "element", "inet", network.TableName(hostID), "publish", "{ udp . 9000, tcp . 9000 }")
			}
			if places[1] {
				w.nftIn(v.UID, "delete element inet "+network.TableName(hostID)+" publish { udp . 9000, tcp . 9000 }")
			}
			w.start()
			w.converge(v.UID, v)
			w.host([]*network.VPC{v})
			if echoes(live, refusal) {
				t.Error("a connection to a port that is no longer published goes on")
			}
			if !echoes(other, patience) || !echoes(inside, patience) {
				t.Error("another connection was cut")
			}
			want := hostWant(v)
			have, err := w.room.ObserveHost(t.Context())
			w.must(err)
			p, err := w.room.PlanHost(&want, have)
			w.must(err)
			if text := p.Text(); strings.Contains(text, "forgotten") {
				t.Errorf("there is still to do:\n%s", text)
			}
		})
	}
}

// A service of the host that begins to listen on a published port is not taken over:
// who connects meets it and no tenant. When it ends, the port is the tenant's again.
func TestAServiceOfTheHostIsNotTakenOver(t *testing.T) {
	w, _ := newPublished(t)
	before := w.connect("internet", hostAddress, port)
	for _, address := range []string{"0.0.0.0", hostAddress} {
		own, err := net.Listen("tcp4", net.JoinHostPort(address, "9000"))
		w.must(err)
		w.must(w.try("internet", func() error {
			conn, err := net.DialTimeout("tcp4", net.JoinHostPort(hostAddress, "9000"), patience)
			if err == nil {
				err = conn.Close()
			}
			return err
		}))
		own.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
		if conn, err := own.Accept(); err != nil {
			t.Errorf("the service on %s is not reached: %v", address, err)
		} else {
			conn.Close()
		}
		w.must(own.Close())
	}
	elsewhere, err := net.Listen("tcp4", "127.0.0.1:9000")
	w.must(err)
	defer elsewhere.Close()
	w.connect("internet", hostAddress, port)
	if !echoes(before, patience) {
		t.Error("a connection to the tenant was cut")
	}
	sink, other := w.sink("web1", port), w.sink("host", port)
	w.datagrams("internet", hostAddress+":9000", 1, 7)
	w.receive(other, 1)
	w.must(other.Close())
	w.datagrams("internet", hostAddress+":9000", 1, 8)
	w.receive(sink, 1)
}

// What the host itself opens to its own port meets the host's service, too, once it
// is noted.
func TestATakenPortIsTheHosts(t *testing.T) {
	w, v := newPublished(t)
	w.connect("host", hostAddress, port)
	want := hostWant(v)
	want.Taken = []spec.Publish{{HostPort: port, Protocol: "tcp"}}
	have, err := w.room.ObserveHost(t.Context())
	w.must(err)
	p, err := w.room.PlanHost(&want, have)
	w.must(err)
	w.apply(p)
	for _, from := range []string{"host", "internet"} {
		w.refused(from, hostAddress, port) // nobody listens there: it is the host that refuses
	}
}
