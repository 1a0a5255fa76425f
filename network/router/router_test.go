package router_test

import (
	"context"
	"net"
	"os/exec"
	"testing"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network"
)

func TestInsideOneVPC(t *testing.T) { inBothOrders(t, insideOneVPC) }

func insideOneVPC(t *testing.T, w *world) {
	v := w.vpc("vpca", 0)
	w.endpoint(v, "web1", "10.0.1.10", "web")
	w.endpoint(v, "def1", "10.0.1.11", "default")
	w.endpoint(v, "def2", "10.0.1.12", "default")
	w.converge(v.UID, v)
	for _, port := range []int{80, 81, 2005} {
		w.serve("web1", port)
		w.serve("def2", port)
	}
	if seen := w.reaches("def1", "10.0.1.10", 80); seen != "10.0.1.11" {
		t.Errorf("the server saw %s, want the instance's own address", seen)
	}
	w.reaches("def1", "10.0.1.10", 2005)
	w.refused("def1", "10.0.1.10", 81)
	w.reaches("def1", "10.0.1.12", 81) // default accepts its members
	w.refused("web1", "10.0.1.12", 81) // and nobody else
	if !w.pings("def1", "10.0.1.10") {
		t.Error("ping that a rule allows is not answered")
	}
	if w.pings("web1", "10.0.1.11") {
		t.Error("ping that no rule allows is answered")
	}
}

func TestClosingARuleCutsTheLiveFlowAndNoOther(t *testing.T) {
	inBothOrders(t, closingARuleCutsTheLiveFlowAndNoOther)
}

func closingARuleCutsTheLiveFlowAndNoOther(t *testing.T, w *world) {
	v := w.vpc("vpca", 0)
	w.endpoint(v, "web1", "10.0.1.10", "web")
	w.endpoint(v, "cli1", "10.0.1.11", "open")
	w.endpoint(v, "cli2", "10.0.1.12", "open")
	w.converge(v.UID, v)
	w.serve("web1", 80)
	w.serve("web1", 2000)
	w.serve("cli2", 81)
	kept, _, err := w.dial("cli1", "10.0.1.10", 80)
	w.must(err)
	defer kept.Close()
	cut, _, err := w.dial("cli1", "10.0.1.10", 2000)
	w.must(err)
	defer cut.Close()
	other, _, err := w.dial("cli1", "10.0.1.12", 81)
	w.must(err)
	defer other.Close()

	web := v.Groups["web"]
	web.Spec.Ingress = []spec.Rule{{Action: "accept", Protocol: "tcp", Ports: "80", Remote: "0.0.0.0/0"}}
	v.Groups["web"] = web
	w.converge(v.UID, v)

	if echoes(cut, refusal) {
		t.Error("the connection on the closed port goes on")
	}
	if !echoes(kept, patience) {
		t.Error("the connection on the port that stays open was cut")
	}
	if !echoes(other, patience) {
		t.Error("the connection of another instance was cut")
	}
	w.refused("cli2", "10.0.1.10", 2000)
}

func TestLeavingAGroupCutsWhatItAllowed(t *testing.T) {
	inBothOrders(t, leavingAGroupCutsWhatItAllowed)
}

func leavingAGroupCutsWhatItAllowed(t *testing.T, w *world) {
	v := w.vpc("vpca", 0)
	w.endpoint(v, "def1", "10.0.1.10", "default")
	w.endpoint(v, "def2", "10.0.1.11", "default")
	w.endpoint(v, "def3", "10.0.1.12", "default")
	w.converge(v.UID, v)
	w.serve("def1", 80)
	cut, _, err := w.dial("def2", "10.0.1.10", 80)
	w.must(err)
	defer cut.Close()
	kept, _, err := w.dial("def3", "10.0.1.10", 80)
	w.must(err)
	defer kept.Close()
	v.Endpoints[1].Groups = []string{"open"}
	w.converge(v.UID, v)
	if echoes(cut, refusal) {
		t.Error("a connection of an instance that left the group goes on")
	}
	if !echoes(kept, patience) {
		t.Error("a connection of an instance that stayed in the group was cut")
	}
}

func TestEveryPacketIsMetered(t *testing.T) { inBothOrders(t, everyPacketIsMetered) }

func everyPacketIsMetered(t *testing.T, w *world) {
	v := w.vpc("vpca", 0)
	a := w.endpoint(v, "aaaa", "10.0.1.10", "open")
	b := w.endpoint(v, "bbbb", "10.0.1.11", "open")
	w.converge(v.UID, v)
	w.host([]*network.VPC{v})
	const flows, size = 100, 100
	const packet = size + 28 // with the headers of UDP and IP
	listen := w.sink("bbbb", 9999)
	outer := w.sink("internet", 9999)
	for range flows {
		w.datagrams("aaaa", "10.0.1.11:9999", 1, size) // every packet stamps
		w.datagrams("aaaa", outside+":9999", 1, size)
	}
	w.datagrams("aaaa", "10.0.1.11:9999", flows, size) // one stamps, the rest follow
	w.receive(listen, 2*flows)
	w.receive(outer, flows)
	traffic, err := w.room.Counters(context.Background(), v.UID)
	w.must(err)
	check := func(what string, got network.Count, packets uint64) {
		t.Helper()
		if want := (network.Count{Packets: packets, Bytes: packets * packet}); got != want {
			t.Errorf("%s: got %+v, want %+v", what, got, want)
		}
	}
	check("a intranet egress", traffic[a.Instance].IntranetEgress, 2*flows)
	check("a internet egress", traffic[a.Instance].InternetEgress, flows)
	check("a intranet ingress", traffic[a.Instance].IntranetIngress, 0)
	check("b intranet ingress", traffic[b.Instance].IntranetIngress, 2*flows)
	check("b internet ingress", traffic[b.Instance].InternetIngress, 0)

	open := v.Groups["open"]
	open.Spec.Ingress = append(open.Spec.Ingress, spec.Rule{Action: "accept", Protocol: "tcp", Ports: "1", Remote: "any"})
	v.Groups["open"] = open
	w.converge(v.UID, v)
	w.datagrams("aaaa", "10.0.1.11:9999", 1, size)
	w.receive(listen, 1)
	traffic, err = w.room.Counters(context.Background(), v.UID)
	w.must(err)
	check("b over a policy change", traffic[b.Instance].IntranetIngress, 2*flows+1)
}

func TestSpoofedSourcesAreDropped(t *testing.T) { inBothOrders(t, spoofedSourcesAreDropped) }

func spoofedSourcesAreDropped(t *testing.T, w *world) {
	v := w.vpc("vpca", 0)
	w.endpoint(v, "evil", "10.0.1.10", "open")
	w.endpoint(v, "good", "10.0.1.11", "open")
	w.converge(v.UID, v)
	l := w.sink("good", 9999)
	w.in("evil", func() error { return exec.Command("ip", "addr", "add", "10.0.1.99/32", "dev", "eth0").Run() })
	w.in("evil", func() error {
		c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(10, 0, 1, 99)}, &net.UDPAddr{IP: net.IPv4(10, 0, 1, 11), Port: 9999})
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("from another's address"))
		return err
	})
	w.changeMAC("evil", network.InstanceMAC("good").String())
	w.datagrams("evil", "10.0.1.11:9999", 1, 10)
	w.changeMAC("evil", network.InstanceMAC("evil").String())
	w.datagrams("evil", "10.0.1.11:9999", 1, 33)
	if got := w.receive(l, 1); got[0] != 33 {
		t.Errorf("received a datagram of %d bytes, want only the honest one of 33", got[0])
	}
}

func TestVPCsWithOneCIDRAreApart(t *testing.T) { inBothOrders(t, vPCsWithOneCIDRAreApart) }

func vPCsWithOneCIDRAreApart(t *testing.T, w *world) {
	a, b := w.vpc("vpca", 0), w.vpc("vpcb", 1)
	w.endpoint(a, "aaaa", "10.0.1.10", "open")
	w.endpoint(a, "aaa2", "10.0.1.11", "open")
	w.endpoint(b, "bbbb", "10.0.1.10", "open")
	w.endpoint(b, "bbb2", "10.0.1.12", "open")
	w.converge(a.UID, a)
	w.converge(b.UID, b)
	w.host([]*network.VPC{a, b})
	w.serve("bbbb", 80)
	w.serve("bbb2", 80)
	w.refused("aaa2", "10.0.1.10", 80) // that is aaaa, which serves nothing
	w.refused("aaa2", "10.0.1.12", 80)
	w.refused("aaa2", b.Transit.Router.String(), 80)
	w.refused("aaa2", b.Transit.Host.String(), 80)
	w.reaches("bbb2", "10.0.1.10", 80)
}

func TestOutAndIn(t *testing.T) { inBothOrders(t, outAndIn) }

func outAndIn(t *testing.T, w *world) {
	v, other := w.vpc("vpca", 0), w.vpc("vpcb", 1)
	e := w.endpoint(v, "web1", "10.0.1.10", "web")
	v.Endpoints[0].Publish = []spec.Publish{{HostPort: 8080, Port: 80, Protocol: "tcp"}, {HostPort: 8081, Port: 81, Protocol: "tcp"}}
	w.endpoint(other, "nbr1", "10.0.1.10", "open")
	w.converge(v.UID, v)
	w.converge(other.UID, other)
	w.host([]*network.VPC{v, other})
	w.serve("internet", 80)
	w.serve("operator", 80)
	w.in("internet", func() error { return exec.Command("ip", "addr", "add", cloud+"/32", "dev", "eth0").Run() })
	w.run("ip", "route", "add", cloud, "dev", "uplink")
	w.serve("host", 7000)
	w.serve("web1", 80)
	w.serve("web1", 81)

	if seen := w.reaches("web1", outside, 80); seen != hostAddress {
		t.Errorf("the internet saw %s, want the host's address", seen)
	}
	w.reaches("host", cloud, 80)
	w.refused("web1", cloud, 80)
	w.refused("web1", management, 80)
	w.refused("web1", hostAddress, 7000)
	w.refused("web1", v.Transit.Host.String(), 7000)

	if seen := w.reaches("internet", hostAddress, 8080); seen != outside {
		t.Errorf("the instance saw %s, want the client's own address", seen)
	}
	w.refused("internet", hostAddress, 8081) // published, but its group does not allow it
	w.reaches("operator", "192.0.2.1", 8080) // the reply goes to a protected network
	w.reaches("host", hostAddress, 8080)
	w.refused("host", "127.0.0.1", 8080)
	w.refused("nbr1", hostAddress, 8080) // a host address is protected
	w.in("internet", func() error { return exec.Command("ip", "route", "add", "100.127.0.0/24", "via", hostAddress).Run() })
	w.refused("internet", v.Transit.Router.String(), 80)

	live, _, err := w.dial("internet", hostAddress, 8080)
	w.must(err)
	defer live.Close()
	v.Groups["web"] = group(nil, "0.0.0.0/0")
	w.converge(v.UID, v)
	if echoes(live, refusal) {
		t.Errorf("a published connection to %s outlives its rule", e.Name)
	}
}

// Somebody on the host's side has an address that the VPC also has, and whose
// instance has no link: he gets nothing of what is for it.
func TestWhatIsForTheVPCStaysInside(t *testing.T) { inBothOrders(t, whatIsForTheVPCStaysInside) }

func whatIsForTheVPCStaysInside(t *testing.T, w *world) {
	const absent = "10.0.1.77"
	w.in("internet", func() error { return exec.Command("ip", "addr", "add", absent+"/32", "dev", "eth0").Run() })
	w.run("ip", "route", "add", absent, "dev", "uplink")
	v := w.vpc("vpca", 0)
	w.endpoint(v, "web1", "10.0.1.10", "open")
	v.Endpoints[0].Publish = []spec.Publish{{HostPort: 8080, Port: 80, Protocol: "tcp"}}
	w.converge(v.UID, v)
	gone := w.endpoint(v, "gone", absent, "open")
	gone.Publish = []spec.Publish{{HostPort: 8090, Port: 80, Protocol: "tcp"}}
	v.Endpoints[1] = gone
	w.load(v)
	w.host([]*network.VPC{v})
	w.serve("internet", 80)
	w.serve("web1", 80)

	w.reaches("host", absent, 80)
	w.reaches("web1", outside, 80)
	w.refused("web1", absent, 80)
	w.refused("web1", "10.0.99.99", 80)
	w.reaches("operator", "192.0.2.1", 8080)
	w.refused("operator", "192.0.2.1", 8090)
	// A client outside whose address is one of the VPC's gets its answer.
	conn, err := w.dialAs("internet", absent, hostAddress, 8080)
	w.must(err)
	defer conn.Close()
	if !echoes(conn, patience) {
		t.Error("a client with an address of the VPC gets no answer from a published port")
	}
}

func TestOnlyInstancesReachTheResolver(t *testing.T) { inBothOrders(t, onlyInstancesReachTheResolver) }

func onlyInstancesReachTheResolver(t *testing.T, w *world) {
	v := w.vpc("vpca", 0)
	w.endpoint(v, "inst", "10.0.1.10", "shut")
	w.converge(v.UID, v)
	w.host([]*network.VPC{v})
	udp, tcp, err := w.room.ServiceSockets(context.Background(), v.UID)
	w.must(err)
	defer udp.Close()
	defer tcp.Close()
	packets, err := net.FilePacketConn(udp)
	w.must(err)
	defer packets.Close()
	streams, err := net.FileListener(tcp)
	w.must(err)
	defer streams.Close()
	go func() {
		buffer := make([]byte, 512)
		for {
			n, from, err := packets.ReadFrom(buffer)
			if err != nil {
				return
			}
			packets.WriteTo(buffer[:n], from)
		}
	}()
	resolver := network.ServiceAddress().String()
	var c net.Conn
	w.in("inst", func() error { c, err = net.Dial("udp4", resolver+":53"); return err })
	defer c.Close()
	if !echoes(c, patience) {
		t.Error("the resolver does not answer an instance whose groups allow nothing")
	}
	w.in("inst", func() error { c, err = net.DialTimeout("tcp4", resolver+":53", patience); return err })
	c.Close()
	w.in("internet", func() error { return exec.Command("ip", "route", "add", resolver, "via", hostAddress).Run() })
	w.run("ip", "route", "add", resolver, "via", v.Transit.Router.String())
	w.refused("host", resolver, 53)
	w.refused("internet", resolver, 53)
}
