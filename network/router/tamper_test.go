package router_test

import (
	"context"
	"strings"
	"testing"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network"
	"github.com/gpuhost/gpuhost/network/ruleset"
)

func TestTamperingIsFound(t *testing.T) { inBothOrders(t, tamperingIsFound) }

// Each thing that decides about an instance's packets is changed by hand. The
// proof must name it, and the next plan mends it.
func tamperingIsFound(t *testing.T, w *world) {
	v := w.vpc("vpca", 0)
	w.endpoint(v, "web1", "10.0.1.10", "web", "default")
	w.endpoint(v, "cli1", "10.0.1.11", "open")
	v.Endpoints[0].Publish = []spec.Publish{{HostPort: 8080, Port: 80, Protocol: "tcp"}}
	w.converge(v.UID, v)
	table := network.TableName(hostID)
	to := policyOf(t, v, "to_web1")
	add := func(set, element string) string {
		return "add element inet " + table + " " + set + " { " + element + " }"
	}
	for _, tt := range []struct{ name, control, tamper string }{
		{"untouched", "", ""},
		{"guard emptied", "N1", "flush chain netdev " + table + " guard_web1"},
		{"guard open", "N1", "add chain netdev " + table + " guard_web1 { policy accept; }"},
		{"forward open", "N3", "add chain inet " + table + " forward { policy accept; }"},
		{"a rule before the policy", "N4", "insert rule inet " + table + " to_web1 accept"},
		{"link in no map", "N5", "delete element inet " + table + " from { \"i-web1\" }"},
		{"no table", "N3", "delete table inet " + table},
		{"hook elsewhere", "N3", "delete table inet " + table + "; add table inet " + table +
			"; add chain inet " + table + " forward { type filter hook forward priority 5; policy accept; }"},
		{"set of another type", "N3", "delete table inet " + table + "; add table inet " + table + "; add set inet " + table + " protected { type inet_service; }"},
		{"a member more in a group", "N4", add("sg_default", "10.0.9.9")},
		{"a member less", "N4", "delete element inet " + table + " sg_default { 10.0.1.10 }"},
		{"a box more", "N4", add(to+"_0", "203.0.113.7 . gre . 0-65535 : accept")},
		{"boxes gone", "N4", "flush map inet " + table + " " + to + "_0"},
		{"a tag more", "N4", add(to+"_epoch", "0")},
		{"a published port more", "N7", add("publish", "tcp . 2222 : 10.0.1.11 . 22")},
		{"a published port elsewhere", "N7", "delete element inet " + table + " publish { tcp . 8080 }; " + add("publish", "tcp . 8080 : 10.0.1.11 . 80")},
		{"a link more", "N7", add("from", "\"i-evil\" : accept")},
		{"an asker of the resolver more", "N7", add("services", "\"up0\" : accept")},
		{"protected networks gone", "N7", "flush set inet " + table + " protected"},
		{"the internet counts as intranet", "N7", add("intranet4", "203.0.113.0/24")},
		{"the network's own addresses gone", "N7", "flush set inet " + table + " inside"},
		{"protection emptied", "N7", "flush chain inet " + table + " protect"},
		{"a second translation", "N7", "insert rule inet " + table + " nat_pre tcp dport 2222 dnat ip to 10.0.1.11:22"},
		{"the router's own stack open", "N7", "add chain inet " + table + " input { policy accept; }"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.nftIn(v.UID, tt.tamper)
			for range 2 { // what was read once is not taken for what is there
				controls, err := w.room.Prove(context.Background(), *v, "web1")
				w.must(err)
				if got := firstFailure(controls); !strings.HasPrefix(got, tt.control) || (tt.control == "") != (got == "") {
					t.Errorf("first control that fails: %q, want %q", got, tt.control)
				}
			}
			w.converge(v.UID, v) // and the next plan repairs it
			controls, err := w.room.Prove(context.Background(), *v, "web1")
			w.must(err)
			if got := firstFailure(controls); got != "" {
				t.Errorf("after repair %s fails", got)
			}
		})
	}
}

// policyOf is the chain of the policy that an instance's chain jumps to.
func policyOf(t *testing.T, v *network.VPC, chain string) string {
	t.Helper()
	rules, err := network.NewPlanner(hostID).Compile(*v, network.MarksOf(nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range rules.Router.Chains {
		if c.Name != chain {
			continue
		}
		for _, r := range c.Rules {
			for _, e := range r.Exprs {
				if v, ok := e.(ruleset.Verdict); ok && v.Kind == ruleset.Jump {
					return v.Chain
				}
			}
		}
	}
	t.Fatalf("chain %s jumps nowhere", chain)
	return ""
}

// A change of our own leaves the evidence of what it did not touch, and only that.
func TestAnOwnChangeIsProvedAnew(t *testing.T) {
	w := newWorld(t, guardFirst)
	v := w.vpc("vpca", 0)
	w.endpoint(v, "web1", "10.0.1.10", "web", "default")
	w.converge(v.UID, v)
	prove := func(v *network.VPC) string {
		controls, err := w.room.Prove(context.Background(), *v, "web1")
		w.must(err)
		return firstFailure(controls)
	}
	before := *v
	for i := range 3 {
		w.endpoint(v, spec.UID("mem"+string(rune('a'+i))), "10.0.1.2"+string(rune('0'+i)), "default")
		w.converge(v.UID, v)
		if got := prove(v); got != "" {
			t.Errorf("after change %d: %s", i, got)
		}
		if got := prove(&before); !strings.HasPrefix(got, "N4") {
			t.Errorf("what was in force before change %d is proved now: %q", i, got)
		}
	}
}

// hostWant is what the host should do for these networks.
func hostWant(vpcs ...*network.VPC) network.HostWant {
	want := network.HostWant{Uplink: "uplink"}
	for _, v := range vpcs {
		h := network.HostVPC{UID: v.UID, Transit: v.Transit}
		for _, e := range v.Endpoints {
			h.Publish = append(h.Publish, e.Publish...)
		}
		want.VPCs, want.Protected = append(want.VPCs, h), v.Protected
	}
	return want
}

func TestTamperingWithTheHostIsFound(t *testing.T) {
	w := newWorld(t, guardFirst)
	v := w.vpc("vpca", 0)
	w.endpoint(v, "web1", "10.0.1.10", "web")
	v.Endpoints[0].Publish = []spec.Publish{{HostPort: 8080, Port: 80, Protocol: "tcp"}}
	w.converge(v.UID, v)
	w.host([]*network.VPC{v})
	table := "inet " + network.TableName(hostID)
	for _, tt := range []struct{ name, tamper string }{
		{"table gone", "flush ruleset"},
		{"a port more", "add element " + table + " publish { tcp . 22 : 100.127.0.1 }"},
		{"a port elsewhere", "delete element " + table + " publish { tcp . 8080 }; add element " + table + " publish { tcp . 8080 : 192.0.2.2 }"},
		{"protected networks gone", "flush set " + table + " protected"},
		{"link not known", "delete element " + table + " transit { \"gt-vpca\" }"},
		{"forwards for everybody", "flush set " + table + " opened"},
		{"tenants let through", "insert rule " + table + " from_tenants accept"},
		{"the host open to tenants", "flush chain " + table + " input"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			prove := func() spec.Control {
				c, err := w.room.ProveHost(context.Background(), hostWant(v))
				w.must(err)
				return c
			}
			if c := prove(); !c.Pass || c.ID != "N8" {
				t.Fatalf("before: %+v", c)
			}
			w.run("nft", tt.tamper)
			if c := prove(); c.Pass {
				t.Error("it is not found")
			}
			w.host([]*network.VPC{v})
		})
	}
	w.run("nft", "delete", "element", "inet", network.TableName(hostID), "publish", "{ tcp . 8080 }")
	if c, err := w.room.ProveHost(context.Background(), hostWant(v)); err != nil || !c.Pass {
		t.Errorf("a port that is not published harms somebody: %+v, %v", c, err)
	}
}

// Two networks that publish one port: what keeps tenants apart is in force
// nevertheless, for a third as well.
func TestABrokenPublishLeavesTheGuard(t *testing.T) {
	w := newWorld(t, guardFirst)
	a, b, c := w.vpc("vpca", 0), w.vpc("vpcb", 1), w.vpc("vpcc", 2)
	for _, v := range []*network.VPC{a, b} {
		w.endpoint(v, spec.UID(v.UID[3:]+"one"), "10.0.1.10", "web")
		v.Endpoints[0].Publish = []spec.Publish{{HostPort: 8080, Port: 80, Protocol: "tcp"}}
		w.converge(v.UID, v)
	}
	w.endpoint(c, "cone", "10.0.1.10", "web")
	w.converge(c.UID, c)
	want := hostWant(a, b, c)
	have, err := w.room.ObserveHost(context.Background())
	w.must(err)
	p, err := w.room.PlanHost(&want, have)
	w.must(err)
	ordered, err := p.Ordered()
	w.must(err)
	var failed []string
	for _, s := range ordered.Steps {
		if err := w.room.Apply(context.Background(), s, nil); err != nil {
			failed = append(failed, s.Verb)
		}
	}
	if len(failed) != 1 || failed[0] != network.VerbPublish {
		t.Errorf("steps that failed: %v, want only publish", failed)
	}
	if c, err := w.room.ProveHost(context.Background(), want); err != nil || !c.Pass {
		t.Errorf("the guard is not in force: %+v, %v", c, err)
	}
	w.serve("operator", 80)
	w.refused("cone", management, 80)
}
