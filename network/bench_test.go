package network_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network"
)

// BenchmarkPlan is the share of P3 that is ours alone: from a changed group to
// what the kernel should change, beside groups that do not.
func BenchmarkPlan(b *testing.B) {
	for _, instances := range []int{1, 200} {
		b.Run(fmt.Sprintf("instances=%d/rules=%d", instances, 500*instances), func(b *testing.B) {
			vpc := vpcOf()
			for i := range instances {
				var rules []spec.Rule
				for r := range 500 {
					rules = append(rules, spec.Rule{Action: "accept", Protocol: "tcp", Ports: fmt.Sprint(1000 + r), Remote: fmt.Sprintf("172.%d.%d.0/24", 16+i%16, r%256)})
				}
				name := fmt.Sprintf("big%d", i)
				vpc.Groups[name] = groupOf(rules...)
				vpc.Endpoints = append(vpc.Endpoints, endpoint(spec.UID(fmt.Sprintf("i%04d", i)), netip.AddrFrom4([4]byte{10, 0, byte(1 + i/250), byte(i%250 + 1)}).String(), name))
			}
			vpc.Endpoints = append(vpc.Endpoints, endpoint("web1", "10.0.0.9", "web"))
			planner := network.NewPlanner("h1")
			have := network.Have{Namespace: true, Ready: true, Transit: vpc.Transit}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				vpc.Groups["web"] = groupOf(spec.Rule{Action: "accept", Protocol: "tcp", Ports: fmt.Sprint(1 + i%60_000), Remote: "any"})
				p, err := planner.Plan(&vpc, vpc.UID, have)
				if err != nil {
					b.Fatal(err)
				}
				rules := p.Steps[len(p.Steps)-1].Args.(network.LoadArgs).Rules
				have.Guard, have.Router = rules.Guard.State(), rules.Router.State()
			}
		})
	}
}
