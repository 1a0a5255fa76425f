package router_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network"
	"github.com/gpuhost/gpuhost/network/netns"
)

const rulesPerGroup = 500

// loaded is a network with about n rule elements: instances with a group of their
// own each, and one, "web1", whose group the benchmarks change.
func (w *world) loaded(n int) *network.VPC {
	v := w.vpc("vpcb", 0)
	w.endpoint(v, "web1", "10.0.0.10", "web")
	for i := 0; n > 0; i++ {
		size := min(n, rulesPerGroup)
		n -= size
		var rules []spec.Rule
		for r := range size {
			rules = append(rules, spec.Rule{
				Action: "accept", Protocol: "tcp", Ports: fmt.Sprint(1000 + r),
				Remote: fmt.Sprintf("172.%d.%d.0/24", 16+i%16, r%256),
			})
		}
		name := fmt.Sprintf("big%d", i)
		v.Groups[name] = group(rules, "0.0.0.0/0")
		w.endpoint(v, spec.UID(fmt.Sprintf("i%d", i)), netip.AddrFrom4([4]byte{10, 0, byte(1 + i/250), byte(i%250 + 1)}).String(), name)
	}
	return v
}

// change gives web1's group another rule.
func change(v *network.VPC, i int) {
	v.Groups["web"] = group([]spec.Rule{{Action: "accept", Protocol: "tcp", Ports: fmt.Sprint(2000 + i%1000), Remote: "0.0.0.0/0"}}, "0.0.0.0/0")
}

// percentiles reports the middle and the slow end of what was measured.
func percentiles(b *testing.B, times []time.Duration) {
	slices.Sort(times)
	at := func(q float64) float64 { return float64(times[int(q*float64(len(times)-1))].Microseconds()) / 1000 }
	b.ReportMetric(at(0.5), "p50-ms")
	b.ReportMetric(at(0.99), "p99-ms")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkRuleChange is P3: from a changed group to its rules in force, with
// more and more rules present that do not change.
func BenchmarkRuleChange(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			w := newWorld(b, guardFirst)
			v := w.loaded(n)
			w.converge(v.UID, v)
			var times []time.Duration
			b.ResetTimer()
			for i := range b.N {
				change(v, i)
				start := time.Now()
				w.applyRules(v)
				times = append(times, time.Since(start))
			}
			b.StopTimer()
			percentiles(b, times)
		})
	}
}

// applyRules is what the VPC's lane does when a group changed.
func (w *world) applyRules(v *network.VPC) {
	have, err := w.room.Observe(context.Background(), v.UID)
	w.must(err)
	p, err := w.room.Plan(v, v.UID, have)
	w.must(err)
	for _, s := range p.Steps {
		w.must(w.room.Apply(context.Background(), s, nil))
	}
}

// BenchmarkRuleChangeNft is the peer: the nft command changes one rule beside the
// same rules.
func BenchmarkRuleChangeNft(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			w := newWorld(b, guardFirst)
			v := w.loaded(n)
			w.converge(v.UID, v)
			f, err := os.Open(filepath.Join(w.dir, "netns", "vpc-vpcb"))
			w.must(err)
			defer f.Close()
			var times []time.Duration
			b.ResetTimer()
			for i := range b.N {
				script := fmt.Sprintf("flush chain inet %[1]s refuse\nadd rule inet %[1]s refuse tcp dport %[2]d drop\n", network.TableName(hostID), 1+i%60000)
				start := time.Now()
				w.must(netns.Do(f, func() error {
					c := exec.Command("nft", "-f", "-")
					c.Stdin = strings.NewReader(script)
					return c.Run()
				}))
				times = append(times, time.Since(start))
			}
			b.StopTimer()
			percentiles(b, times)
		})
	}
}

// BenchmarkAttach is one instance more on a VPC that has some: its rules, its
// link, its proof.
func BenchmarkAttach(b *testing.B) {
	for _, tt := range []struct {
		instances int
		order     order
	}{{1, guardFirst}, {200, guardFirst}, {200, linkFirst}} {
		n := tt.instances
		b.Run(fmt.Sprintf("instances=%d/linkfirst=%t", n, tt.order), func(b *testing.B) {
			w := newWorld(b, tt.order)
			v := w.vpc("vpcb", 0)
			for i := range n {
				w.endpoint(v, spec.UID(fmt.Sprintf("i%d", i)), netip.AddrFrom4([4]byte{10, 0, 1, byte(i + 1)}).String(), "web")
			}
			w.converge(v.UID, v)
			ctx := context.Background()
			var times []time.Duration
			b.ResetTimer()
			for i := range b.N {
				uid := spec.UID(fmt.Sprintf("n%d", i))
				e := w.endpoint(v, uid, netip.AddrFrom4([4]byte{10, 0, byte(2 + i/250), byte(i%250 + 1)}).String(), "web")
				w.applyRules(v)
				have, err := w.room.Observe(ctx, v.UID)
				w.must(err)
				start := time.Now()
				w.apply(w.room.PlanEndpoint(*v, e, have))
				times = append(times, time.Since(start))
			}
			b.StopTimer()
			percentiles(b, times)
		})
	}
}

// BenchmarkFirstLoad is P5: everything at once, as after a reboot.
func BenchmarkFirstLoad(b *testing.B) {
	for _, n := range []int{1000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			w := newWorld(b, guardFirst)
			v := w.loaded(n)
			var times []time.Duration
			for range b.N {
				start := time.Now()
				w.applyRules(v)
				times = append(times, time.Since(start))
				w.converge(v.UID, nil)
			}
			percentiles(b, times)
		})
	}
}
