package network_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network"
)

// drawVPC makes a random network out of few parts, so that versions share some.
func drawVPC(t *rapid.T) *network.VPC {
	vpc := vpcOf()
	vpc.Transit.Router = rapid.SampledFrom([]netip.Addr{netip.MustParseAddr("100.127.0.1"), netip.MustParseAddr("100.127.0.3")}).Draw(t, "router")
	remotes := []string{"any", "10.0.0.0/8", "10.0.1.0-10.0.1.77", "sg:default", "sg:web", "sg:shut"}
	for _, name := range []string{"default", "web", "shut"} {
		var rules []spec.Rule
		for range rapid.IntRange(0, 4).Draw(t, "rules of "+name) {
			rules = append(rules, spec.Rule{
				Action:   rapid.SampledFrom([]string{"accept", "drop"}).Draw(t, "action"),
				Protocol: "tcp", Ports: rapid.SampledFrom([]string{"", "22", "80,90-99"}).Draw(t, "ports"),
				Remote: rapid.SampledFrom(remotes).Draw(t, "remote"),
			})
		}
		vpc.Groups[name] = groupOf(rules...)
	}
	for i := range rapid.IntRange(0, 5).Draw(t, "endpoints") {
		groups := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"default", "web", "shut"}), 0, 3, rapid.ID).Draw(t, "groups")
		e := endpoint(spec.UID(fmt.Sprintf("inst%04d", i)), fmt.Sprintf("10.0.1.%d", rapid.IntRange(1, 3).Draw(t, "address")+10*i), groups...)
		if rapid.Bool().Draw(t, "publishes") {
			e.Publish = []spec.Publish{{HostPort: uint16(8000 + i), Port: 80, Protocol: "tcp"}}
		}
		vpc.Endpoints = append(vpc.Endpoints, e)
	}
	return &vpc
}

// lab is a room on a fake, and the steps that bring it to what is wanted.
type lab struct {
	t      *rapid.T
	kernel *fake
	room   *network.Room
}

func newLab(t *rapid.T, o order) *lab {
	l := &lab{t: t, kernel: newFake(o)}
	l.restart()
	return l
}

// restart forgets everything but the kernel.
func (l *lab) restart() {
	room, err := network.New(network.Deps{HostID: "h1", Kernel: l.kernel})
	if err != nil {
		l.t.Fatal(err)
	}
	l.room = room
}

func (l *lab) plan(want *network.VPC) plan.Plan {
	have, err := l.room.Observe(context.Background(), "vpc1")
	if err != nil {
		l.t.Fatal(err)
	}
	p, err := l.room.Plan(want, "vpc1", have)
	if err != nil {
		l.t.Fatal(err)
	}
	if want != nil {
		for _, e := range want.Endpoints {
			p = plan.Merge(p, l.room.PlanEndpoint(*want, e, have))
		}
		for uid := range have.Links {
			if !wants(want, uid) {
				p = plan.Merge(p, l.room.PlanDetach("vpc1", network.Endpoint{Instance: uid}, have))
			}
		}
	}
	ordered, err := p.Ordered()
	if err != nil {
		l.t.Fatal(err)
	}
	return ordered
}

func wants(v *network.VPC, uid spec.UID) bool {
	for _, e := range v.Endpoints {
		if e.Instance == uid {
			return true
		}
	}
	return false
}

// apply applies the first n steps, each times times.
func (l *lab) apply(p plan.Plan, n, times int) {
	for _, s := range p.Steps[:n] {
		for range times {
			if err := l.room.Apply(context.Background(), s, nil); err != nil {
				l.t.Fatalf("apply %s: %v", s.ID, err)
			}
		}
	}
}

// crash ends the process after n steps, or within the next one where that is an attach.
func (l *lab) crash(p plan.Plan, n int, within bool) {
	l.apply(p, n, 1)
	if within && n < len(p.Steps) && p.Steps[n].Verb == network.VerbAttach {
		l.kernel.crash = true
		if err := l.room.Apply(context.Background(), p.Steps[n], nil); !errors.Is(err, errCrash) {
			l.t.Fatalf("apply %s: %v, want a crash", p.Steps[n].ID, err)
		}
	}
	l.restart()
}

// endSome ends some of the tasks that links lead to.
func (l *lab) endSome() {
	for _, uid := range rapid.SliceOfDistinct(rapid.IntRange(0, 4), rapid.ID).Draw(l.t, "tasks that end") {
		l.kernel.end("vpc1", spec.UID(fmt.Sprintf("inst%04d", uid)))
	}
}

func TestLaws(t *testing.T) {
	inEveryOrder(t, func(t *rapid.T, l *lab) {
		for range rapid.IntRange(1, 4).Draw(t, "versions") {
			l.endSome()
			want := drawVPC(t)
			if rapid.IntRange(0, 4).Draw(t, "remove") == 0 {
				want = nil
			}
			p := l.plan(want)
			l.crash(p, rapid.IntRange(0, len(p.Steps)).Draw(t, "crash after"), rapid.Bool().Draw(t, "within a step"))
			p = l.plan(want)
			l.apply(p, len(p.Steps), rapid.IntRange(1, 2).Draw(t, "times")) // idempotent
			if rest := l.plan(want); !rest.Empty() {                        // convergent, minimal
				t.Fatalf("after apply there is still to do:\n%s", rest.Text())
			}
			l.restart()
			if rest := l.plan(want); !rest.Empty() {
				t.Fatalf("a new process finds something to do:\n%s", rest.Text())
			}
			l.check(want)
		}
	})
}

// The lanes of an instance and of its VPC run side by side: a load that was planned
// before the attach does not take the guard away that came with it.
func TestALateLoadLeavesTheGuard(t *testing.T) {
	inEveryOrder(t, func(t *rapid.T, l *lab) {
		want := drawVPC(t)
		p := l.plan(want)
		l.apply(p, len(p.Steps), 1)
		for _, s := range p.Steps {
			if s.Verb == network.VerbLoad {
				l.apply(plan.Of(s), 1, 1)
			}
		}
		l.check(want)
	})
}

// What is left of a guard whose link ended on its own goes once, and does not come
// back before the next attach.
func TestTheRulesOfAnEndedLinkConverge(t *testing.T) {
	inEveryOrder(t, func(t *rapid.T, l *lab) {
		want := drawVPC(t)
		p := l.plan(want)
		l.apply(p, len(p.Steps), 1)
		l.endSome()
		for range 2 {
			have, err := l.room.Observe(context.Background(), want.UID)
			if err != nil {
				t.Fatal(err)
			}
			rules, err := l.room.Plan(want, want.UID, have)
			if err != nil {
				t.Fatal(err)
			}
			p = rules
			l.apply(p, len(p.Steps), 1)
		}
		if !p.Empty() {
			t.Fatalf("the rules do not come to rest:\n%s", p.Text())
		}
	})
}

// What a planner remembers saves work and changes nothing: one that compiled other
// versions before makes the rules that a new one makes.
func TestMemoryChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		planner := network.NewPlanner("h1")
		marks := network.MarksOf(nil)
		versions := []*network.VPC{drawVPC(t), drawVPC(t), drawVPC(t)}
		for range rapid.IntRange(1, 6).Draw(t, "compilations") {
			vpc := rapid.SampledFrom(versions).Draw(t, "version")
			got, err := planner.Compile(*vpc, marks)
			if err != nil {
				t.Fatal(err)
			}
			want, err := network.NewPlanner("h1").Compile(*vpc, marks)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want.Router.Text()+want.Guard.Text(), got.Router.Text()+got.Guard.Text()); diff != "" {
				t.Fatalf("a planner that remembers makes other rules (-new +remembering):\n%s", diff)
			}
			if diff := cmp.Diff(want.Marks, got.Marks); diff != "" {
				t.Fatalf("and other epochs:\n%s", diff)
			}
			if rapid.Bool().Draw(t, "loaded") {
				marks = network.MarksOf(got.Router.State())
			}
		}
	})
}

func (l *lab) check(want *network.VPC) {
	if want == nil {
		if len(l.kernel.vpcs) != 0 {
			l.t.Fatal("something is left of a network that nobody wants")
		}
		return
	}
	if names := l.kernel.unguarded(*want); names != nil {
		l.t.Fatalf("links of %v are up without a guard", names)
	}
	for _, e := range want.Endpoints {
		controls, err := l.room.Prove(context.Background(), *want, e.Instance)
		if err != nil {
			l.t.Fatal(err)
		}
		for _, c := range controls {
			if !c.Pass {
				l.t.Fatalf("control %s of %s: expected %s, found %s", c.ID, e.Instance, c.Expected, c.Found)
			}
		}
	}
}

// No device of a tenant exists before its guard: whatever is applied first, an
// attach without one fails.
func TestGuardIsInForceBeforeAttach(t *testing.T) {
	inEveryOrder(t, func(t *rapid.T, l *lab) {
		want := drawVPC(t)
		p := l.plan(want)
		loaded := false
		for _, s := range p.Steps {
			loaded = loaded || s.Verb == network.VerbLoad
			if s.Verb == network.VerbAttach && !loaded {
				t.Fatalf("attach comes before load:\n%s", p.Text())
			}
		}
		for _, s := range p.Steps {
			if s.Verb == network.VerbAttach && l.room.Apply(context.Background(), s, nil) == nil {
				t.Fatal("attach without rules in force succeeds")
			}
		}
	})
}

// Whatever happens to the host's table and devices, and wherever the process ends:
// no device forwards for its neighbours that would not without us, and in the end
// all are as they were found.
func TestHostLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLab(t, orders()[0])
		for i := range rapid.IntRange(1, 4).Draw(t, "versions") {
			want := drawHost(t, i)
			l.kernel.bare = rapid.SampledFrom([]string{"", "eth0", "eth2"}).Draw(t, "device without an address")
			if rapid.Bool().Draw(t, "flush") {
				l.kernel.host.Table = nil
			}
			l.hostSteps(want, rapid.IntRange(0, 3).Draw(t, "crash after"))
			l.restart()
			l.hostSteps(want, len(l.hostPlan(want).Steps))
			l.restart()
			if p := l.hostPlan(want); !p.Empty() {
				t.Fatalf("after apply there is still to do:\n%s", p.Text())
			}
		}
		l.hostSteps(nil, 2)
		if !maps.Equal(l.kernel.host.Forwarding, newFake(orders()[0]).host.Forwarding) || l.kernel.host.Opened != nil {
			t.Fatalf("devices are not left as they were found: %v, noted %v", l.kernel.host.Forwarding, l.kernel.host.Opened)
		}
	})
}

func drawHost(t *rapid.T, version int) *network.HostWant {
	if rapid.IntRange(0, 3).Draw(t, "no network") == 0 {
		return nil
	}
	want := &network.HostWant{Protected: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
	for n := range rapid.IntRange(0, 3).Draw(t, "networks") {
		want.VPCs = append(want.VPCs, network.HostVPC{
			UID:     spec.UID(fmt.Sprintf("vpc%d", n)),
			Transit: network.Transit{Router: netip.AddrFrom4([4]byte{100, 127, byte(version), byte(2*n + 1)})},
		})
	}
	return want
}

// A host that the operator made a router stays one: nothing is dropped for that we
// once opened a device, and no device is switched.
func TestTheOperatorsRouterStaysOne(t *testing.T) {
	want := &network.HostWant{}
	have := network.HostHave{Router: true, Opened: []string{"eth0"}, Forwarding: map[string]bool{"eth0": true, "eth1": false}}
	planner := network.NewPlanner("h1")
	p, err := planner.PlanHost(want, have)
	if err != nil || len(p.Steps) != 1 {
		t.Fatalf("PlanHost = %s, %v; want only the table", p.Text(), err)
	}
	load, err := plan.ArgsAs[network.HostArgs](p.Steps[0])
	if err != nil || load.Opened != nil || len(load.Table.State().Set("opened").Elements) != 0 {
		t.Errorf("a device is still held to be opened for tenants: %+v, %v", load, err)
	}
	p, err = planner.PlanHost(nil, have)
	if err != nil || len(p.Steps) != 1 || p.Steps[0].Verb != network.VerbLoadHost {
		t.Errorf("PlanHost(nil) = %s, %v; want no device switched", p.Text(), err)
	}
}

func (l *lab) hostPlan(want *network.HostWant) plan.Plan {
	have, err := l.room.ObserveHost(context.Background())
	if err != nil {
		l.t.Fatal(err)
	}
	p, err := l.room.PlanHost(want, have)
	if err != nil {
		l.t.Fatal(err)
	}
	ordered, err := p.Ordered()
	if err != nil {
		l.t.Fatal(err)
	}
	return ordered
}

// hostSteps applies the first n steps and looks after each.
func (l *lab) hostSteps(want *network.HostWant, n int) {
	flushed := l.kernel.host.Table == nil
	for i, step := range l.hostPlan(want).Steps {
		if i == n {
			return
		}
		if err := l.room.Apply(context.Background(), step, nil); err != nil {
			l.t.Fatalf("apply %s: %v", step.ID, err)
		}
		if device := l.kernel.routes(); device != "" && !flushed {
			l.t.Fatalf("%s forwards for its neighbours after %s", device, step.ID)
		}
	}
	if device := l.kernel.routes(); device != "" && n > 0 {
		l.t.Fatalf("%s forwards for its neighbours", device)
	}
}
