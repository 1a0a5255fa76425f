package network_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"testing"

	"pgregory.net/rapid"

	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network"
)

// fake is a kernel in memory. It refuses what the real one refuses.
type fake struct {
	vpcs map[spec.UID]*network.Have
	host network.HostHave
}

var errOrder = errors.New("the kernel refuses")

func newFake() *fake {
	return &fake{vpcs: map[spec.UID]*network.Have{}, host: network.HostHave{Forwarding: map[string]bool{"eth0": false, "eth1": true}}}
}

func (f *fake) List(context.Context) ([]spec.UID, error) {
	var uids []spec.UID
	for uid := range f.vpcs {
		uids = append(uids, uid)
	}
	return uids, nil
}

func (f *fake) Observe(_ context.Context, vpc spec.UID) (network.Have, error) {
	have := f.vpcs[vpc]
	if have == nil {
		return network.Have{}, nil
	}
	seen := *have
	seen.Links = maps.Clone(have.Links)
	return seen, nil
}

func (f *fake) Marks(ctx context.Context, vpc spec.UID) (network.Marks, error) {
	have, err := f.Observe(ctx, vpc)
	return network.MarksOf(have.Router), err
}

func (f *fake) Inspect(ctx context.Context, vpc, _ spec.UID, _ []string) (network.Have, error) {
	return f.Observe(ctx, vpc)
}

func (f *fake) Open(_ context.Context, vpc spec.UID, transit network.Transit) error {
	have := f.vpcs[vpc]
	if have == nil {
		have = &network.Have{Links: map[spec.UID]network.LinkState{}}
		f.vpcs[vpc] = have
	}
	have.Namespace, have.Ready, have.Transit = true, true, transit
	return nil
}

func (f *fake) Remove(_ context.Context, vpc spec.UID) error {
	delete(f.vpcs, vpc)
	return nil
}

func (f *fake) Load(_ context.Context, vpc spec.UID, load network.LoadArgs) error {
	have := f.vpcs[vpc]
	if have == nil {
		return fmt.Errorf("%w: load without a namespace", errOrder)
	}
	if _, err := load.Rules.Diff(have.Guard, have.Router); err != nil {
		return err
	}
	have.Guard, have.Router = load.Rules.Guard.State(nil), load.Rules.Router.State(nil)
	return nil
}

func (f *fake) Attach(_ context.Context, vpc spec.UID, e network.Endpoint) error {
	have := f.vpcs[vpc]
	if have == nil || !network.GuardInForce(have.Guard, e) {
		return fmt.Errorf("%w: attach without a guard", errOrder)
	}
	have.Links[e.Instance] = network.LinkState{Up: true, Current: true, Address: e.Address}
	return nil
}

func (f *fake) Detach(_ context.Context, vpc spec.UID, e network.Endpoint) error {
	if have := f.vpcs[vpc]; have != nil {
		delete(have.Links, e.Instance)
	}
	return nil
}

func (f *fake) ObserveHost(context.Context) (network.HostHave, error) {
	seen := f.host
	seen.Forwarding = maps.Clone(f.host.Forwarding)
	return seen, nil
}

func (f *fake) LoadHost(_ context.Context, load network.HostArgs) error {
	f.host.Table = nil
	if load.Table != nil {
		f.host.Table = load.Table.State(nil)
	}
	for _, device := range load.Open {
		f.host.Forwarding[device] = true
	}
	for _, device := range load.Close {
		f.host.Forwarding[device] = false
	}
	return nil
}

func (f *fake) WatchHost(context.Context, func()) error { return nil }

func (f *fake) Counters(context.Context, spec.UID) (map[string]network.Count, error) {
	return nil, nil
}

func (f *fake) ServiceSockets(context.Context, spec.UID) (udp, tcp *os.File, err error) {
	return nil, nil, nil
}

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

func newLab(t *rapid.T) *lab {
	l := &lab{t: t, kernel: newFake()}
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

func TestLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLab(t)
		for range rapid.IntRange(1, 4).Draw(t, "versions") {
			want := drawVPC(t)
			if rapid.IntRange(0, 4).Draw(t, "remove") == 0 {
				want = nil
			}
			p := l.plan(want)
			stop := rapid.IntRange(0, len(p.Steps)).Draw(t, "crash after")
			l.apply(p, stop, 1)
			l.restart()
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

func (l *lab) check(want *network.VPC) {
	if want == nil {
		if len(l.kernel.vpcs) != 0 {
			l.t.Fatal("something is left of a network that nobody wants")
		}
		return
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
	rapid.Check(t, func(t *rapid.T) {
		l := newLab(t)
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
				t.Fatal("attach without a guard in force succeeds")
			}
		}
	})
}

func TestHostLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLab(t)
		ctx := context.Background()
		var want *network.HostWant
		for i := range rapid.IntRange(1, 4).Draw(t, "versions") {
			want = &network.HostWant{Protected: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
			for n := range rapid.IntRange(0, 3).Draw(t, "networks") {
				want.VPCs = append(want.VPCs, network.HostVPC{
					UID:     spec.UID(fmt.Sprintf("vpc%d", n)),
					Transit: network.Transit{Router: netip.AddrFrom4([4]byte{100, 127, byte(i), byte(2*n + 1)})},
				})
			}
			l.hostStep(ctx, want)
			l.restart()
			if p := l.hostPlan(ctx, want); !p.Empty() {
				t.Fatalf("after apply there is still to do:\n%s", p.Text())
			}
		}
		l.hostStep(ctx, nil)
		if forwarding := l.kernel.host.Forwarding; forwarding["eth0"] || !forwarding["eth1"] {
			t.Fatalf("devices are not left as they were found: %v", forwarding)
		}
	})
}

func (l *lab) hostPlan(ctx context.Context, want *network.HostWant) plan.Plan {
	have, err := l.room.ObserveHost(ctx)
	if err != nil {
		l.t.Fatal(err)
	}
	p, err := l.room.PlanHost(want, have)
	if err != nil {
		l.t.Fatal(err)
	}
	return p
}

func (l *lab) hostStep(ctx context.Context, want *network.HostWant) {
	p := l.hostPlan(ctx, want)
	l.apply(p, len(p.Steps), 1)
}
