package router_test

import (
	"context"
	"net/netip"
	"os"
	"testing"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network"
	"github.com/gpuhost/gpuhost/network/netns"
)

func TestANewProcessFindsEverythingInForce(t *testing.T) {
	inBothOrders(t, aNewProcessFindsEverythingInForce)
}

func aNewProcessFindsEverythingInForce(t *testing.T, w *world) {
	v := w.vpc("vpca", 0)
	w.endpoint(v, "web1", "10.0.1.10", "web", "default")
	w.endpoint(v, "cli1", "10.0.1.11", "open")
	v.Endpoints[0].Publish = []spec.Publish{{HostPort: 8080, Port: 80, Protocol: "tcp"}}
	w.converge(v.UID, v)
	w.host([]*network.VPC{v})
	w.serve("web1", 80)
	live, _, err := w.dial("cli1", "10.0.1.10", 80)
	w.must(err)
	defer live.Close()
	before := w.rules(v.UID)
	w.must(w.kernel.Close())
	w.start()
	w.converged(v.UID, v)
	have, err := w.room.ObserveHost(context.Background())
	w.must(err)
	p, err := w.room.PlanHost(&network.HostWant{
		Uplink: "uplink", Protected: v.Protected,
		VPCs: []network.HostVPC{{UID: v.UID, Transit: v.Transit, Publish: v.Endpoints[0].Publish}},
	}, have)
	w.must(err)
	if !p.Empty() {
		t.Errorf("the host's table is not found as it was left:\n%s", p.Text())
	}
	if after := w.rules(v.UID); stripCounters(before) != stripCounters(after) {
		t.Error("looking changed the rules")
	}
	if !echoes(live, patience) {
		t.Error("a connection was cut")
	}
	uids, err := w.room.List(context.Background())
	w.must(err)
	if len(uids) != 1 || uids[0] != v.UID {
		t.Errorf("List = %v, want vpca", uids)
	}
}

func TestNothingIsLeft(t *testing.T) { inBothOrders(t, nothingIsLeft) }

func nothingIsLeft(t *testing.T, w *world) {
	devices, tables := w.devices(), w.run("nft", "list", "ruleset")
	v := w.vpc("vpca", 0)
	e := w.endpoint(v, "web1", "10.0.1.10", "web")
	w.converge(v.UID, v)
	w.host([]*network.VPC{v})
	have, err := w.room.Observe(context.Background(), v.UID)
	w.must(err)
	w.apply(w.room.PlanDetach(v.UID, e, have))
	v.Endpoints = nil
	w.converge(v.UID, v)
	have, err = w.room.Observe(context.Background(), v.UID)
	w.must(err)
	if len(have.Links) != 0 || len(have.Guard.Chains) != 0 {
		t.Errorf("after detach: links %v, guards %v", have.Links, have.Guard.Chains)
	}
	w.converge(v.UID, nil)
	w.converge(v.UID, nil)
	w.host(nil)
	if got := w.devices(); got != devices {
		t.Errorf("devices\n%s\nwant\n%s", got, devices)
	}
	if got := w.run("nft", "list", "ruleset"); got != tables {
		t.Errorf("tables\n%s\nwant\n%s", got, tables)
	}
	if uids, err := w.room.List(context.Background()); err != nil || len(uids) != 0 {
		t.Errorf("List = %v, %v", uids, err)
	}
}

func TestARestartedInstanceIsAttachedAnew(t *testing.T) {
	inBothOrders(t, aRestartedInstanceIsAttachedAnew)
}

func aRestartedInstanceIsAttachedAnew(t *testing.T, w *world) {
	v := w.vpc("vpca", 0)
	w.endpoint(v, "web1", "10.0.1.10", "web")
	w.endpoint(v, "cli1", "10.0.1.11", "open")
	w.converge(v.UID, v)
	w.must(netns.Delete(w.pin("web1"))) // the link of the old namespace may outlive this for a moment
	w.must(netns.Create(w.pin("web1")))
	w.converge(v.UID, v)
	w.serve("web1", 80)
	w.reaches("cli1", "10.0.1.10", 80)
}

func TestANewAddressIsAttachedAnew(t *testing.T) { inBothOrders(t, aNewAddressIsAttachedAnew) }

func aNewAddressIsAttachedAnew(t *testing.T, w *world) {
	v := w.vpc("vpca", 0)
	w.endpoint(v, "web1", "10.0.1.10", "web")
	w.endpoint(v, "cli1", "10.0.1.11", "open")
	w.converge(v.UID, v)
	v.Endpoints[0].Address = netip.MustParseAddr("10.0.1.20")
	w.converge(v.UID, v)
	w.serve("web1", 80)
	w.reaches("cli1", "10.0.1.20", 80)
	w.refused("cli1", "10.0.1.10", 80)
}

func TestAFlushByAnotherIsSeenAndRepaired(t *testing.T) {
	inBothOrders(t, aFlushByAnotherIsSeenAndRepaired)
}

func aFlushByAnotherIsSeenAndRepaired(t *testing.T, w *world) {
	v := w.vpc("vpca", 0)
	w.endpoint(v, "web1", "10.0.1.10", "web")
	w.converge(v.UID, v)
	w.host([]*network.VPC{v})
	seen := make(chan struct{}, 100)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.room.WatchHost(ctx, func() { seen <- struct{}{} }) }()
	<-seen // it listens
	w.run("nft", "flush", "ruleset")
	<-seen
	w.host([]*network.VPC{v})
	w.serve("operator", 80)
	w.serve("internet", 80)
	w.refused("web1", management, 80)
	w.reaches("web1", outside, 80)
	stop()
	w.must(<-done)
}

func TestAPinThatGoesWhileItIsLookedAt(t *testing.T) {
	inBothOrders(t, aPinThatGoesWhileItIsLookedAt)
}

// Between two looks at a pin its namespace may go: what is seen then is a file that
// is there, and not a namespace.
func aPinThatGoesWhileItIsLookedAt(t *testing.T, w *world) {
	v := w.vpc("vpca", 0)
	e := w.endpoint(v, "web1", "10.0.1.10", "web")
	w.converge(v.UID, v)
	held, err := netns.Open(e.Netns) // so that the link does not end
	w.must(err)
	defer held.Close()
	w.must(netns.Delete(e.Netns))
	w.must(os.WriteFile(e.Netns, nil, 0o600))
	have, err := w.room.Observe(context.Background(), v.UID)
	w.must(err)
	if link := have.Links[e.Instance]; !link.Up || link.Current {
		t.Errorf("the link is %+v, want it up and not current", link)
	}
}
