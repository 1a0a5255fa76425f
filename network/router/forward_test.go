package router_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/gpuhost/gpuhost/network"
	"github.com/gpuhost/gpuhost/network/link"
)

const (
	tunnel       = "198.51.100.2" // somebody behind a device that forwarded before us
	tunnelDevice = "wg0"
)

// newHost is a world in which every neighbour sends everything by the host, and one
// device forwards already.
func newHost(t *testing.T) *world {
	w := newWorld(t, guardFirst)
	w.neighbour("tunnel", tunnelDevice, "198.51.100.1", tunnel)
	t.Cleanup(func() { w.run("ip", "link", "del", tunnelDevice) })
	w.forward("all", "0")
	w.forward(tunnelDevice, "1")
	for name, gateway := range map[string]string{"internet": hostAddress, "operator": "192.0.2.1", "tunnel": "198.51.100.1"} {
		w.in(name, func() error { return exec.Command("ip", "route", "add", "default", "via", gateway).Run() })
	}
	return w
}

func (w *world) forward(device, value string) {
	w.t.Helper()
	w.must(link.Set(link.Device("ipv4", device, "forwarding", value)))
}

func (w *world) forwarding() string {
	w.t.Helper()
	var values []string
	for _, device := range []string{"uplink", "mgmt", tunnelDevice} {
		value, err := link.Get(link.Device("ipv4", device, "forwarding", ""))
		w.must(err)
		values = append(values, device+" "+value)
	}
	return strings.Join(values, ", ")
}

// apart checks that no neighbour reaches another by the host.
func (w *world) apart(when string) {
	w.t.Helper()
	for _, way := range [][2]string{{"internet", management}, {"operator", outside}, {"internet", tunnel}} {
		if w.pings(way[0], way[1]) {
			w.t.Errorf("%s: %s reaches %s by the host", when, way[0], way[1])
		}
	}
}

func TestTheHostIsNoRouterForItsNeighbours(t *testing.T) {
	w := newHost(t)
	before := w.forwarding()
	v := w.vpc("vpca", 0)
	w.endpoint(v, "web1", "10.0.1.10", "open")
	w.converge(v.UID, v)
	w.apart("before")

	w.host([]*network.VPC{v})
	if got := w.forwarding(); got != "uplink 1, mgmt 1, wg0 1" {
		t.Errorf("with a network: %s", got)
	}
	w.apart("with a network")
	if !w.pings("web1", outside) {
		t.Error("a tenant does not reach the internet")
	}

	w.run("nft", "flush", "ruleset")
	w.must(w.kernel.Close())
	w.start() // a new process knows it as well
	w.host([]*network.VPC{v})
	w.apart("after a flush")

	w.run("ip", "addr", "del", "192.0.2.1/24", "dev", "mgmt")
	w.host([]*network.VPC{v})
	w.run("ip", "addr", "add", "192.0.2.1/24", "dev", "mgmt")
	w.in("operator", func() error { return exec.Command("ip", "route", "replace", "default", "via", "192.0.2.1").Run() })
	w.apart("after an address went and came, before anybody looked")
	w.host([]*network.VPC{v})
	w.apart("after an address went and came")

	w.host(nil)
	if after := w.forwarding(); after != before {
		t.Errorf("after the last network: %s, want %s as before", after, before)
	}
}
