package router_test

import (
	"context"
	"strings"
	"testing"

	"github.com/gpuhost/gpuhost/network"
	"github.com/gpuhost/gpuhost/network/netns"
)

// steps are the plan of an instance's link as things stand.
func (w *world) steps(v *network.VPC, e network.Endpoint) (load, link []string) {
	w.t.Helper()
	have, err := w.room.Observe(context.Background(), v.UID)
	w.must(err)
	p, err := w.room.Plan(v, v.UID, have)
	w.must(err)
	for _, s := range p.Steps {
		load = append(load, s.Verb)
	}
	for _, s := range w.room.PlanEndpoint(*v, e, have).Steps {
		link = append(link, s.Verb)
	}
	return load, link
}

func (w *world) hasGuard(v *network.VPC, e network.Endpoint) bool {
	w.t.Helper()
	return strings.Contains(w.rules(v.UID), network.GuardName(e.Instance)+" {")
}

// up says whether the router's end of an instance's link is there, and switched on.
func (w *world) up(v *network.VPC, e network.Endpoint) (there, up bool) {
	w.t.Helper()
	have, err := w.room.Observe(context.Background(), v.UID)
	w.must(err)
	return have.Linked(e.Instance), have.Links[e.Instance].Up
}

func TestWhereTheGuardIsMade(t *testing.T) { inBothOrders(t, whereTheGuardIsMade) }

func whereTheGuardIsMade(t *testing.T, w *world) {
	v := w.vpc("vpca", 0)
	e := w.endpoint(v, "web1", "10.0.1.10", "web")
	w.applyRules(v)
	if load, _ := w.steps(v, e); load != nil {
		t.Errorf("after load there is still to do: %v", load)
	}
	have, err := w.room.Observe(context.Background(), v.UID)
	w.must(err)
	if w.order == linkFirst && !have.LinkFirst {
		t.Error("the order asked for is not kept")
	}
	if got, want := w.hasGuard(v, e), !have.LinkFirst; got != want { // a kernel before 6.16 has one order only
		t.Errorf("a guard before the link: %t, want %t", got, want)
	}
	w.converge(v.UID, v)
	if !w.hasGuard(v, e) {
		t.Error("no guard after attach")
	}
}

// The guard cannot be made, because its table went after load; so the process might
// have ended at that point.
func TestALinkWithoutAGuardStaysDown(t *testing.T) {
	w := newWorld(t, linkFirst)
	v := w.vpc("vpca", 0)
	e := w.endpoint(v, "web1", "10.0.1.10", "web")
	w.endpoint(v, "cli1", "10.0.1.11", "open")
	w.applyRules(v)
	w.nftIn(v.UID, "delete table netdev "+network.TableName(hostID))
	if err := w.kernel.Attach(context.Background(), v.UID, e); err == nil {
		t.Fatal("attach without a guard succeeds")
	}
	if there, up := w.up(v, e); !there || up {
		t.Fatalf("the link is there: %t, up: %t, want it there and down", there, up)
	}
	w.must(w.kernel.Close())
	w.start()
	w.converge(v.UID, v)
	controls, err := w.room.Prove(context.Background(), *v, e.Instance)
	w.must(err)
	if got := firstFailure(controls); got != "" {
		t.Errorf("after repair %s fails", got)
	}
	w.serve("web1", 80)
	w.reaches("cli1", "10.0.1.10", 80)
}

func TestNoLinkIsMadeBeforeItsRules(t *testing.T) { inBothOrders(t, noLinkIsMadeBeforeItsRules) }

func noLinkIsMadeBeforeItsRules(t *testing.T, w *world) {
	v := w.vpc("vpca", 0)
	w.applyRules(v)
	e := w.endpoint(v, "web1", "10.0.1.10", "web")
	if err := w.kernel.Attach(context.Background(), v.UID, e); err == nil {
		t.Error("attach before load succeeds")
	}
	if there, _ := w.up(v, e); there {
		t.Error("there is a link before its rules")
	}
}

// An instance's lane may attach between the plan of its VPC's lane and the load.
func TestALoadPlannedBeforeTheAttach(t *testing.T) { inBothOrders(t, aLoadPlannedBeforeTheAttach) }

func aLoadPlannedBeforeTheAttach(t *testing.T, w *world) {
	v := w.vpc("vpca", 0)
	e := w.endpoint(v, "web1", "10.0.1.10", "web")
	w.applyRules(v)
	change(v, 0)
	have, err := w.room.Observe(context.Background(), v.UID)
	w.must(err)
	late, err := w.room.Plan(v, v.UID, have)
	w.must(err)
	w.must(w.kernel.Attach(context.Background(), v.UID, e))
	w.apply(late)
	controls, err := w.room.Prove(context.Background(), *v, e.Instance)
	w.must(err)
	if got := firstFailure(controls); got != "" {
		t.Errorf("after the load %s fails", got)
	}
}

// A task that ends takes its namespace, its link and, before Linux 6.14, the guard.
func TestAGuardThatEndedWithItsLink(t *testing.T) {
	tests := []struct {
		name  string
		taken bool // by the kernel; else it stays, as on this one
	}{{"the guard ended", true}, {"the guard stayed", false}}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, linkFirst)
			v := w.vpc("vpca", 0)
			e := w.endpoint(v, "web1", "10.0.1.10", "web")
			w.endpoint(v, "cli1", "10.0.1.11", "open")
			w.converge(v.UID, v)
			w.must(netns.Delete(e.Netns))
			w.eventually("the link to end", func() bool { there, _ := w.up(v, e); return !there })
			if tt.taken {
				guard := "netdev " + network.TableName(hostID) + " " + network.GuardName(e.Instance)
				w.nftIn(v.UID, "flush chain "+guard+"; delete chain "+guard)
			}
			w.applyRules(v)
			if load, link := w.steps(v, e); load != nil || link == nil {
				t.Errorf("still to load: %v, to link: %v", load, link)
			}
			if w.hasGuard(v, e) {
				t.Error("there is a guard without a link")
			}
			w.must(netns.Create(e.Netns))
			w.converge(v.UID, v)
			w.serve("web1", 80)
			w.reaches("cli1", "10.0.1.10", 80)
		})
	}
}
