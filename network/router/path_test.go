package router_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network/netns"
	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

const (
	pathRules  = 1000
	pathRounds = 30
	pathBurst  = 5_000
	pathPort   = 7007
)

// path is one way from a sender to a sink, through a namespace that routes or not.
type path struct {
	name     string
	from, to string // pinned namespaces
	address  string // of the sink
	cpu      []time.Duration
	wall     []time.Duration
	lost     int
}

// BenchmarkPath is P4: what a packet costs on its way through the guard, the
// router and its policies, beside a namespace that only routes, and one with a
// linear chain. All send a burst in turn, so that a busy machine troubles them alike.
//
// The kernel carries a packet over virtual cables within the sender's system call: the
// processor time of the sending thread is the cost of the whole path. The best of
// many bursts is what others disturbed least.
func BenchmarkPath(b *testing.B) {
	w := newWorld(b, guardFirst)
	var paths []*path
	add := func(p *path) { paths = append(paths, p) }
	add(w.straight())
	add(w.plain("plain", "plain routing", 1))
	if p, err := w.linear(); err != nil {
		b.Logf("linear chain: not measured: %v", err)
	} else {
		add(p)
	}
	add(w.ours("vpc1", "1 rule", 0, 1, 2))
	add(w.ours("vpcr", fmt.Sprintf("%d rules", pathRules), 1, pathRules, 2))
	add(w.ours("vpci", "100 instances", 2, 1, 100))
	for round := range pathRounds {
		for i := range paths {
			w.burst(paths[(round+i)%len(paths)])
		}
	}
	reportPaths(b, paths)
}

func reportPaths(b *testing.B, paths []*path) {
	cost := func(name string) (ns float64) {
		for _, p := range paths {
			if p.name == name {
				ns = float64(slices.Min(p.cpu).Nanoseconds())
			}
		}
		return ns
	}
	load, _ := os.ReadFile("/proc/loadavg")
	fmt.Printf("\nP4: a packet's whole path, processor time of the sender, %d bursts of %d in turn; load %s", pathRounds, pathBurst, load)
	for _, p := range paths {
		fmt.Printf("  %-16s best %5d ns  p50 %5d ns  (wall p50 %6d ns; %d lost)\n", p.name,
			slices.Min(p.cpu).Nanoseconds(), middle(p.cpu).Nanoseconds(), middle(p.wall).Nanoseconds(), max(p.lost, 0))
	}
	one, many, instances := cost("1 rule"), cost(fmt.Sprintf("%d rules", pathRules)), cost("100 instances")
	fmt.Printf("  of the best: whole path %.2f x plain routing; its hop alone %.2f x; %d rules add %+.0f ns, 100 instances %+.0f ns\n",
		one/cost("plain routing"), (one-cost("no hop"))/(cost("plain routing")-cost("no hop")), pathRules, many-one, instances-one)
	b.ReportMetric(one/cost("plain routing"), "x-plain")
	b.ReportMetric(many-one, "ns-for-rules")
	b.ReportMetric(instances-one, "ns-for-instances")
	b.ReportMetric(0, "ns/op")
}

func middle(times []time.Duration) time.Duration {
	slices.Sort(times)
	return times[len(times)/2]
}

// burst sends datagrams down a path from one thread, and counts what arrives at
// the sink's interface.
func (w *world) burst(p *path) {
	w.t.Helper()
	before := w.arrived(p.to)
	w.in(p.from, func() error {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		c, err := net.Dial("udp4", net.JoinHostPort(p.address, fmt.Sprint(pathPort)))
		if err != nil {
			return err
		}
		defer c.Close()
		payload := make([]byte, 18)
		start, used := time.Now(), threadTime()
		for range pathBurst {
			if _, err := c.Write(payload); err != nil {
				return err
			}
		}
		p.cpu = append(p.cpu, (threadTime()-used)/pathBurst)
		p.wall = append(p.wall, time.Since(start)/pathBurst)
		return nil
	})
	p.lost += pathBurst - (w.arrived(p.to) - before)
}

func threadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// arrived reads how many packets eth0 of a namespace received.
func (w *world) arrived(where string) (packets int) {
	w.t.Helper()
	w.in(where, func() error {
		text, err := os.ReadFile("/proc/thread-self/net/dev")
		for line := range strings.Lines(string(text)) {
			if name, rest, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && name == "eth0" {
				_, err = fmt.Sscan(strings.Fields(rest)[1], &packets)
			}
		}
		return err
	})
	return packets
}

// ours is a network of n instances, whose first sends to its second, past so
// many rules.
func (w *world) ours(uid spec.UID, name string, number, rules, n int) *path {
	v := w.vpc(uid, number)
	var list []spec.Rule
	for r := range rules - 1 {
		list = append(list, spec.Rule{Action: "accept", Protocol: "tcp", Ports: fmt.Sprint(1000 + r), Remote: fmt.Sprintf("172.16.%d.0/24", r%256)})
	}
	v.Groups["sink"] = group(append(list, spec.Rule{Action: "accept", Protocol: "udp", Ports: fmt.Sprint(pathPort), Remote: "any"}), "0.0.0.0/0")
	for i := range n {
		w.endpoint(v, spec.UID(fmt.Sprintf("%s%d", uid, i)), fmt.Sprintf("10.0.1.%d", i+1), []string{"open", "sink"}[min(i, 1)])
	}
	w.converge(v.UID, v)
	p := &path{name: name, from: string(uid) + "0", to: string(uid) + "1", address: "10.0.1.2"}
	w.sink(p.to, pathPort)
	return p
}

// straight is one cable without a hop: what sending and receiving alone cost.
func (w *world) straight() *path {
	w.neighbourOf("ssrc", "sdst", "10.1.0.1/24", "10.1.0.2/24")
	w.sink("sdst", pathPort)
	return &path{name: "no hop", from: "ssrc", to: "sdst", address: "10.1.0.2"}
}

// plain is a namespace that routes between two cables, as ours does, and asks
// nothing.
func (w *world) plain(prefix, name string, net byte) *path {
	src, mid, dst := prefix+"src", prefix+"mid", prefix+"dst"
	near, far := fmt.Sprintf("10.2.%d.", net), fmt.Sprintf("10.3.%d.", net)
	w.namespaces(src, mid, dst)
	w.cableBetween(src, "eth0", near+"1/24", mid, "in", near+"2/24")
	w.cableBetween(dst, "eth0", far+"1/24", mid, "out", far+"2/24")
	w.in(mid, func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) })
	w.in(src, func() error { return exec.Command("ip", "route", "add", "default", "via", near+"2").Run() })
	w.in(dst, func() error { return exec.Command("ip", "route", "add", "default", "via", far+"2").Run() })
	w.sink(dst, pathPort)
	return &path{name: name, from: src, to: dst, address: far + "1"}
}

// linear is plain routing past a chain of rules, one after the other.
func (w *world) linear() (*path, error) {
	if _, err := exec.LookPath("iptables-restore"); err != nil {
		return nil, err
	}
	p := w.plain("lin", fmt.Sprintf("%d in a chain", pathRules), 2)
	rules := []string{"*filter", ":FORWARD DROP"}
	for r := range pathRules - 1 {
		rules = append(rules, fmt.Sprintf("-A FORWARD -s 172.16.%d.0/24 -p tcp --dport %d -j ACCEPT", r%256, 1000+r))
	}
	rules = append(rules, fmt.Sprintf("-A FORWARD -p udp --dport %d -j ACCEPT", pathPort), "COMMIT", "")
	return p, w.try("linmid", func() error {
		c := exec.Command("iptables-restore")
		c.Stdin = strings.NewReader(strings.Join(rules, "\n"))
		out, err := c.CombinedOutput()
		return errors.Join(err, asError(out))
	})
}

func asError(out []byte) error {
	if len(out) == 0 {
		return nil
	}
	return errors.New(strings.TrimSpace(string(out)))
}

func (w *world) namespaces(names ...string) {
	hosttest.Need(w.t, "ip")
	for _, name := range names {
		w.must(netns.Create(w.pin(name)))
	}
}

func (w *world) neighbourOf(a, b, here, there string) {
	w.namespaces(a, b)
	w.cableBetween(a, "eth0", here, b, "eth0", there)
}

// cableBetween lays a cable with an address at each end between two namespaces.
func (w *world) cableBetween(a, deviceA, addressA, b, deviceB, addressB string) {
	w.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "tmp0")
	w.moveTo(a)
	w.run("ip", "link", "set", "tmp0", "name", "eth0")
	w.moveTo(b)
	for _, end := range [][3]string{{a, deviceA, addressA}, {b, deviceB, addressB}} {
		w.in(end[0], func() error {
			return errors.Join(
				rename(end[1]),
				exec.Command("ip", "addr", "add", end[2], "dev", end[1]).Run(),
				exec.Command("ip", "link", "set", end[1], "mtu", fmt.Sprint(1400), "up").Run())
		})
	}
}

// rename gives eth0 its name, where that is another.
func rename(name string) error {
	if name == "eth0" {
		return nil
	}
	return exec.Command("ip", "link", "set", "eth0", "name", name).Run()
}
