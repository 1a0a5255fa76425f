package router_test

import (
	"context"
	"errors"
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
// own each, and one, "web1", whose group the benchmarks change; "cli1" and "cli2"
// talk to it.
func (w *world) loaded(n int) *network.VPC {
	v := w.vpc("vpcb", 0)
	w.endpoint(v, "web1", flowSink, "web")
	w.endpoint(v, "cli1", "10.0.0.11", "open")
	w.endpoint(v, "cli2", "10.0.0.12", "open")
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

// change gives web1's group another rule, beside the one that its flows need.
func change(v *network.VPC, i int) {
	v.Groups["web"] = group([]spec.Rule{
		{Action: "accept", Protocol: "tcp", Ports: fmt.Sprint(2000 + i%1000), Remote: "0.0.0.0/0"},
		{Action: "accept", Protocol: "udp", Ports: fmt.Sprint(flowPort), Remote: "0.0.0.0/0"},
	}, "0.0.0.0/0")
}

// at is the q-th part of sorted times, in milliseconds.
func at(times []time.Duration, q float64) float64 {
	slices.Sort(times)
	return float64(times[int(q*float64(len(times)-1))].Microseconds()) / 1000
}

// percentiles reports the middle and the slow end of what was measured.
func percentiles(b *testing.B, times []time.Duration) {
	b.ReportMetric(at(times, 0.5), "p50-ms")
	b.ReportMetric(at(times, 0.99), "p99-ms")
	b.ReportMetric(0, "ns/op")
}

func load() string {
	text, _ := os.ReadFile("/proc/loadavg") // absent: nothing is printed
	return strings.Join(strings.Fields(string(text))[:1], "")
}

const (
	liveFlows = 100_000
	peerEvery = 5 // of our changes, between which the peer makes one
)

// BenchmarkRuleChange is P3: from a changed group to its rules in force, with
// more and more rules present that do not change, and live flows that the changed
// policy let in. In turn with it the nft command changes one rule beside the same
// rules. Meanwhile a stream that is allowed and one that is not are counted.
func BenchmarkRuleChange(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			w := newWorld(b, guardFirst)
			v := w.loaded(n)
			change(v, -1)
			w.converge(v.UID, v)
			live := w.flows(v, liveFlows)
			s := w.streams()
			var ours, peer []time.Duration
			for i := 0; b.Loop(); i++ {
				change(v, i)
				start := time.Now()
				w.applyRules(v)
				ours = append(ours, time.Since(start))
				s.probe(w)
				if i%peerEvery == 0 {
					peer = append(peer, w.nftChange(v.UID, i))
					w.applyRules(v) // to a foreign hand's change it answers with a full reading, and repair
				}
			}
			sent, lost, tried, leaked := s.end(w)
			percentiles(b, ours)
			ratio := at(peer, 0.5) / at(ours, 0.5)
			b.ReportMetric(ratio, "x-nft")
			fmt.Printf("\nP3: one rule of %d changed %d times, %d live flows: p50 %.2f ms, p99 %.2f ms; nft -f p50 %.1f ms: %.0f x; %d of %d allowed lost, %d of %d denied leaked; load %s\n",
				n, len(ours), live, at(ours, 0.5), at(ours, 0.99), at(peer, 0.5), ratio, lost, sent, leaked, tried, load())
		})
	}
}

// nftChange has the nft command change one rule of a chain.
func (w *world) nftChange(vpc spec.UID, i int) time.Duration {
	w.t.Helper()
	f, err := os.Open(filepath.Join(w.dir, "netns", "vpc-"+string(vpc)))
	w.must(err)
	defer f.Close()
	script := fmt.Sprintf("flush chain inet %[1]s refuse\nadd rule inet %[1]s refuse tcp dport %[2]d drop\nadd rule inet %[1]s refuse drop\n", network.TableName(hostID), 1+i%60000)
	start := time.Now()
	w.must(netns.Do(f, func() error {
		c := exec.Command("nft", "-f", "-")
		c.Stdin = strings.NewReader(script)
		return c.Run()
	}))
	return time.Since(start)
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

// BenchmarkProve is the network's part of an audit of every instance of a VPC with
// 100,000 rules: the first, by a process that knows nothing; one of a network at
// rest; and one after a rule was changed.
func BenchmarkProve(b *testing.B) {
	w := newWorld(b, guardFirst)
	v := w.loaded(100_000)
	w.converge(v.UID, v)
	all := func() time.Duration {
		start := time.Now()
		for _, e := range v.Endpoints {
			controls, err := w.room.Prove(context.Background(), *v, e.Instance)
			w.must(err)
			if got := firstFailure(controls); got != "" {
				b.Fatalf("%s of %s", got, e.Instance)
			}
		}
		return time.Since(start)
	}
	var first, rest, changed []time.Duration
	for i := 0; b.Loop(); i++ {
		w.must(w.kernel.Close())
		w.start()
		first, rest = append(first, all()), append(rest, all())
		change(v, i)
		w.applyRules(v)
		changed = append(changed, all())
	}
	n := float64(len(v.Endpoints))
	b.ReportMetric(at(rest, 0.5)/n, "p50-ms/instance")
	b.ReportMetric(0, "ns/op")
	fmt.Printf("\nproof of %.0f instances, 100,000 rules, %d times: first %.0f ms, at rest %.0f ms, after a change %.0f ms; load %s\n",
		n, len(rest), at(first, 0.5), at(rest, 0.5), at(changed, 0.5), load())
}

// BenchmarkFirstLoad is P5: everything at once, as after a reboot. Ours is from the
// groups as written to rules in force, the namespace made on the way; the peer's is
// the nft command with the very rules that ours left, in a namespace that is there.
func BenchmarkFirstLoad(b *testing.B) {
	for _, n := range []int{1000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			w := newWorld(b, guardFirst)
			v := w.loaded(n)
			var ours, peer []time.Duration
			for b.Loop() {
				start := time.Now()
				w.applyRules(v)
				ours = append(ours, time.Since(start))
				peer = append(peer, w.nftLoad(w.rules(v.UID)))
				w.converge(v.UID, nil)
			}
			percentiles(b, ours)
			ratio := at(ours, 0.5) / at(peer, 0.5)
			b.ReportMetric(ratio, "of-nft")
			fmt.Printf("\nP5: first load of %d rules, %d times: p50 %.0f ms; nft -f p50 %.0f ms: %.2f of it; load %s\n",
				n, len(ours), at(ours, 0.5), at(peer, 0.5), ratio, load())
		})
	}
}

// nftLoad has the nft command load a listing into an empty namespace. It cannot
// read all that it writes: it gets words that mean as much work.
func (w *world) nftLoad(listing string) time.Duration {
	w.t.Helper()
	file := filepath.Join(w.t.TempDir(), "rules.nft")
	listing = strings.NewReplacer("ct protocol . ct reply proto-src", "meta l4proto . th dport", "@nh,128,32", "ip daddr").Replace(listing)
	w.must(os.WriteFile(file, []byte(listing), 0o600))
	scratch, err := netns.Scratch()
	w.must(err)
	defer scratch.Close()
	var took time.Duration
	w.must(netns.Do(scratch, func() error {
		start := time.Now()
		out, err := exec.Command("nft", "-f", file).CombinedOutput()
		took = time.Since(start)
		return errors.Join(err, asError(out))
	}))
	return took
}
