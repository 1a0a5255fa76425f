package network_test

import (
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network"
)

var update = flag.Bool("update", false, "write golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func accept(protocol, ports, remote string) spec.Rule {
	return spec.Rule{Action: "accept", Protocol: protocol, Ports: ports, Remote: remote}
}

func drop(protocol, remote string) spec.Rule {
	return spec.Rule{Action: "drop", Protocol: protocol, Remote: remote}
}

func groupOf(ingress ...spec.Rule) network.Group {
	return network.Group{Spec: spec.SecurityGroupSpec{Ingress: ingress, Egress: []spec.Rule{accept("all", "", "0.0.0.0/0")}}}
}

func vpcOf(endpoints ...network.Endpoint) network.VPC {
	return network.VPC{
		UID: "vpc1", Tenant: "acme", Name: "default", CIDR: netip.MustParsePrefix("10.0.0.0/16"),
		Transit:   network.Transit{Host: netip.MustParseAddr("100.127.0.0"), Router: netip.MustParseAddr("100.127.0.1")},
		Protected: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("192.0.3.0/24")},
		Groups: map[string]network.Group{
			"default": groupOf(accept("all", "", "sg:default")),
			"web":     groupOf(drop("all", "10.6.0.0/16"), accept("tcp", "22,8000-9000", "sg:default"), accept("tcp", "80", "any")),
			"shut":    {},
		},
		Endpoints: endpoints,
	}
}

func endpoint(uid spec.UID, address string, groups ...string) network.Endpoint {
	return network.Endpoint{Instance: uid, Name: string(uid), Address: netip.MustParseAddr(address), Groups: groups, Netns: "/run/" + string(uid)}
}

func TestCompiledText(t *testing.T) {
	published := endpoint("web00001", "10.0.1.10", "web")
	published.Publish = []spec.Publish{{HostPort: 8080, Port: 80, Protocol: "tcp"}, {HostPort: 53, Port: 53, Protocol: "udp"}}
	tests := []struct {
		name string
		vpc  network.VPC
	}{
		{"empty", vpcOf()},
		{"one", vpcOf(published)},
		{"three", vpcOf(endpoint("web00001", "10.0.1.10", "web", "default"), endpoint("def00001", "10.0.1.11", "default"), endpoint("shut0001", "10.0.1.12", "shut"))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rules, err := network.NewPlanner("h1").Compile(tt.vpc, network.Marks{})
			if err != nil {
				t.Fatal(err)
			}
			golden(t, tt.name+".nft", rules.Guard.Text()+rules.Router.Text())
		})
	}
}

func TestHostText(t *testing.T) {
	table := network.NewPlanner("h1").CompileHost(network.HostWant{
		Uplink:    "eth0",
		Protected: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
		VPCs: []network.HostVPC{{
			UID:     "vpc1",
			Transit: network.Transit{Host: netip.MustParseAddr("100.127.0.0"), Router: netip.MustParseAddr("100.127.0.1")},
			Publish: []spec.Publish{{HostPort: 8080, Port: 80, Protocol: "tcp"}},
		}},
	}, network.HostHave{Sockets: true, Opened: []string{"eth0"}})
	golden(t, "host.nft", table.Text())
}

func TestPlanText(t *testing.T) {
	vpc := vpcOf(endpoint("web00001", "10.0.1.10", "web"))
	planner := network.NewPlanner("h1")
	p, err := planner.Plan(&vpc, vpc.UID, network.Have{})
	if err != nil {
		t.Fatal(err)
	}
	text := p.Text() + planner.PlanEndpoint(vpc, vpc.Endpoints[0], network.Have{}).Text()
	golden(t, "plan.txt", text)
}

func TestGroupsThatAreWrong(t *testing.T) {
	tests := []struct {
		name  string
		group network.Group
		bound []string
		kind  fault.Kind
	}{
		{"absent group bound", groupOf(), []string{"nobody"}, fault.Invalid},
		{"absent group named", groupOf(accept("all", "", "sg:nobody")), []string{"it"}, fault.Invalid},
		{"wrong port", groupOf(accept("tcp", "70000", "any")), []string{"it"}, fault.Invalid},
		{"IPv6", groupOf(accept("tcp", "70", "::/0")), []string{"it"}, fault.Unsupported},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			vpc := vpcOf(endpoint("web00001", "10.0.1.10", tt.bound...))
			vpc.Groups["it"] = tt.group
			_, err := network.NewPlanner("h1").Plan(&vpc, vpc.UID, network.Have{})
			if !fault.Is(err, tt.kind) {
				t.Errorf("Plan: %v, want kind %s", err, tt.kind)
			}
		})
	}
}

// Only what changed its meaning gets a new epoch.
func TestEpochs(t *testing.T) {
	planner := network.NewPlanner("h1")
	vpc := vpcOf(endpoint("web00001", "10.0.1.10", "web"), endpoint("def00001", "10.0.1.11", "default"), endpoint("shut0001", "10.0.1.12", "shut"))
	first := compile(t, planner, vpc, network.Marks{})
	changed := func(change func(*network.VPC)) int {
		t.Helper()
		v := vpcOf(vpc.Endpoints...)
		change(&v)
		next := compile(t, planner, v, first)
		n := 0
		for chain, stamp := range next.Policies {
			if first.Policies[chain] != stamp {
				n++
			}
		}
		return n
	}
	tests := []struct {
		name   string
		change func(*network.VPC)
		want   int
	}{
		{"nothing", func(*network.VPC) {}, 0},
		{"a rule of one group, one direction", func(v *network.VPC) { v.Groups["web"] = groupOf(accept("tcp", "80", "any")) }, 1},
		{"a rule written otherwise", func(v *network.VPC) {
			v.Groups["web"] = groupOf(drop("all", "10.6.7.8/16"), accept("tcp", "22,8000-9000", "sg:default"), accept("tcp", "80-80", "0.0.0.0/0"))
		}, 0},
		{"a member more: web and default name the group", func(v *network.VPC) {
			v.Endpoints = append(v.Endpoints, endpoint("def00002", "10.0.1.13", "default"))
		}, 2},
		{"a publish", func(v *network.VPC) {
			v.Endpoints[0].Publish = []spec.Publish{{HostPort: 1, Port: 1, Protocol: "tcp"}}
		}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := changed(tt.change); got != tt.want {
				t.Errorf("%d policies got a new epoch, want %d", got, tt.want)
			}
		})
	}
}

// A group that many share changes its own lookups, however many rules the groups
// bound beside it have.
func TestAChangedGroupLeavesTheOthersLookupsAlone(t *testing.T) {
	planner := network.NewPlanner("h1")
	var many []spec.Rule
	for i := range 200 {
		many = append(many, accept("tcp", fmt.Sprint(1000+2*i), "192.0.2.0/24"))
	}
	vpc := vpcOf(endpoint("web00001", "10.0.1.10", "many", "web"), endpoint("web00002", "10.0.1.11", "many", "web"))
	vpc.Groups["many"], vpc.Groups["web"] = groupOf(many...), groupOf(accept("tcp", "80", "any"))
	before, err := planner.Compile(vpc, network.Marks{})
	if err != nil {
		t.Fatal(err)
	}
	vpc.Groups = maps.Clone(vpc.Groups)
	vpc.Groups["web"] = groupOf(accept("tcp", "81", "any"))
	after, err := planner.Compile(vpc, before.Marks)
	if err != nil {
		t.Fatal(err)
	}
	shared := 0
	for _, set := range after.Router.Sets {
		if len(set.Elements) == len(many) && slices.Contains(before.Router.Sets, set) {
			shared++
		}
	}
	if shared != 1 {
		t.Errorf("%d lookups of the group that did not change are those of before, want 1", shared)
	}
	elements := 0
	for _, c := range after.Diff(before.Guard.State(), before.Router.State()) {
		for _, d := range append(c.DropElements, c.AddElements...) {
			elements += len(d.Elements)
		}
	}
	if elements != 4 { // the rule and the epoch, before and after
		t.Errorf("%d elements change, want 4", elements)
	}
}

func compile(t *testing.T, p *network.Planner, vpc network.VPC, have network.Marks) network.Marks {
	t.Helper()
	rules, err := p.Compile(vpc, have)
	if err != nil {
		t.Fatal(err)
	}
	return rules.Marks
}

// After a whole round of epochs a tag comes again: its old connections are
// forgotten first, and a tag in force is never given twice.
func TestEpochsComeRound(t *testing.T) {
	planner := network.NewPlanner("h1")
	vpc := vpcOf(endpoint("web00001", "10.0.1.10", "web"))
	marks := compile(t, planner, vpc, network.Marks{Epoch: 32_766})
	vpc.Groups["web"] = groupOf()
	rules, err := planner.Compile(vpc, marks)
	if err != nil {
		t.Fatal(err)
	}
	if len(rules.Stale) != 1 {
		t.Errorf("stale marks %+v, want one", rules.Stale)
	}
	seen := map[uint64]bool{}
	for _, stamp := range rules.Marks.Policies {
		if seen[stamp.Epoch%32_767] {
			t.Errorf("a tag is in force twice: %+v", rules.Marks.Policies)
		}
		seen[stamp.Epoch%32_767] = true
	}
}

// A tag that a changing policy still stamps flows with is not given out again: its
// flows are forgotten before the transaction, and stamped anew by the old rules
// until it.
func TestATagInForceIsNotGivenOut(t *testing.T) {
	planner := network.NewPlanner("h1")
	vpc := vpcOf(endpoint("web00001", "10.0.1.10", "web"))
	marks := compile(t, planner, vpc, network.Marks{})
	marks.Epoch = 32_767 // the next tags are those in force now
	vpc.Groups["web"] = groupOf(accept("tcp", "81", "any"))
	next := compile(t, planner, vpc, marks)
	for chain, stamp := range next.Policies {
		for old, before := range marks.Policies {
			if stamp != before && (stamp.Epoch-1)%32_767 == (before.Epoch-1)%32_767 {
				t.Errorf("%s gets the tag of %s: epoch %d after %d", chain, old, stamp.Epoch, before.Epoch)
			}
		}
	}
}
