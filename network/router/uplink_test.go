package router_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/gpuhost/gpuhost/network"
)

// With no uplink named, tenants leave by the device of the host's default route and
// by no other.
func TestTenantsLeaveByTheDefaultRoute(t *testing.T) {
	w := newWorld(t, guardFirst)
	w.run("ip", "route", "add", "default", "via", outside)
	v := w.vpc("vpca", 0)
	v.Protected = nil
	w.endpoint(v, "web1", "10.0.1.10", "web")
	w.converge(v.UID, v)
	w.serve("internet", 80)
	w.serve("operator", 80)
	load := func(uplink string) {
		want := hostWant(v)
		want.Uplink = uplink
		have, err := w.room.ObserveHost(t.Context())
		w.must(err)
		p, err := w.room.PlanHost(&want, have)
		w.must(err)
		w.apply(p)
	}
	load("")
	w.reaches("web1", outside, 80)
	w.refused("web1", management, 80)
	load(network.AnyUplink)
	w.reaches("web1", management, 80)
	load("mgmt")
	w.refused("web1", outside, 80)
}

// The MTU of tenants' links follows from the host's uplink, within bounds, unless it
// is named.
func TestTheMTUFollowsTheUplink(t *testing.T) {
	for _, tt := range []struct {
		name, uplink, want string
	}{{"Ethernet", "1500", "1400"}, {"jumbo", "9000", "8900"}, {"beyond any network", "65535", "8900"}, {"narrow", "600", "576"}, {"none", "", "1400"}} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, guardFirst)
			if tt.uplink != "" {
				w.run("ip", "link", "set", "uplink", "mtu", tt.uplink)
				w.run("ip", "route", "add", "default", "via", outside)
			}
			w.must(w.kernel.Close())
			w.start()
			v := w.vpc("vpca", 0)
			w.endpoint(v, "web1", "10.0.1.10", "web")
			w.converge(v.UID, v)
			var text []byte
			w.in("web1", func() (err error) {
				text, err = exec.Command("ip", "-o", "link", "show", "eth0").Output()
				return err
			})
			if !strings.Contains(string(text), " mtu "+tt.want+" ") {
				t.Errorf("the instance has %s, want an MTU of %s", text, tt.want)
			}
		})
	}
}
