package reconcile

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/sim"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/agent/store"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/drivers/gpu"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/network"
	"github.com/gpuhost/gpuhost/network/ruleset"
)

// pretend is a host in memory: real planners, the real drivers room over a real
// store, and containers and router namespaces as plain values. It outlives the
// loops that work on it, as a host outlives its agents.
type pretend struct {
	mu         sync.Mutex
	containers map[spec.UID]*isolation.Have
	granted    map[spec.UID]isolation.Lease // of the task there is
	routers    map[spec.UID]*network.Have
	started    []spec.UID // every start, in order
	log        []plan.ID
	fail       map[plan.ID]error // one failure for each
	looked     int               // observations of instances and VPCs
	blind      error             // of every observation, if it is set
	counters   map[spec.UID]network.Traffic
	guarded    []network.VPC // what the host's own table keeps apart
	// noGuard and noPublish are why the host's table cannot be changed.
	noGuard, noPublish error
	// slow is called while a step is under way, if it is set.
	slow func(ctx context.Context, s plan.Step) error
}

func newPretend() *pretend {
	return &pretend{
		containers: make(map[spec.UID]*isolation.Have), granted: make(map[spec.UID]isolation.Lease),
		routers: make(map[spec.UID]*network.Have), fail: make(map[plan.ID]error),
		counters: make(map[spec.UID]network.Traffic),
	}
}

func (p *pretend) failure(s plan.Step) error {
	p.log = append(p.log, s.ID)
	err := p.fail[s.ID]
	delete(p.fail, s.ID)
	return err
}

// fakeIsolation implements Isolation.
type fakeIsolation struct{ *pretend }

func (f fakeIsolation) Observe(_ context.Context, lease isolation.Lease) (isolation.Have, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looked++
	if f.blind != nil {
		return isolation.Have{}, f.blind
	}
	have := isolation.Have{Nodes: isolation.NodesState{Complete: len(lease.GPUs) == 0}}
	if c := f.containers[lease.UID]; c != nil {
		have = *c
	}
	return have, nil
}

func (f fakeIsolation) Apply(ctx context.Context, s plan.Step, _ plan.Report) error {
	if f.slow != nil {
		if err := f.slow(ctx, s); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.failure(s); err != nil {
		return err
	}
	uid := spec.UID(s.Object)
	c := f.containers[uid]
	if c == nil {
		c = &isolation.Have{}
		f.containers[uid] = c
	}
	lease, _ := s.Args.(isolation.Lease)
	switch s.Verb {
	case isolation.VerbPrepareImage:
		c.Image = isolation.Image{Ref: lease.Image, Digest: "sha256:0"}
	case isolation.VerbMakeCgroup:
		c.Cgroup = isolation.CgroupState{Exists: true, Program: isolation.ProgramGrant}
	case isolation.VerbMakeNodes:
		c.Nodes = isolation.NodesState{Nodes: isolation.Grant(lease, 0), Complete: true}
	case isolation.VerbCreate:
		f.create(c, lease)
	case isolation.VerbStart:
		return f.start(c, uid)
	case isolation.VerbFence:
		c.Cgroup.Program = isolation.ProgramDeny
	case isolation.VerbStop:
		c.Container.Task = isolation.Task{Status: isolation.TaskExited, Exit: &spec.ExitStatus{Code: 143}}
		c.Cgroup.Populated = false
	case isolation.VerbDeleteTask:
		f.deleteTask(c, uid)
	case isolation.VerbDeleteContainer:
		c.Container.Container = false
	case isolation.VerbRemove:
		delete(f.containers, uid)
	}
	return nil
}

func (f fakeIsolation) create(c *isolation.Have, lease isolation.Lease) {
	c.Container = isolation.ContainerState{
		Snapshot: true, Container: true, Generation: lease.Generation, Fingerprint: isolation.FingerprintOf(lease),
		Task: isolation.Task{Status: isolation.TaskCreated, Pid: len(f.log) + 1000},
	}
	c.Cgroup.Populated, c.Pin, c.LogAlive = true, isolation.PinCurrent, true
	f.granted[lease.UID] = lease
}

// start refuses what must never happen: a task whose network is not attached.
func (f fakeIsolation) start(c *isolation.Have, uid spec.UID) error {
	for _, r := range f.routers {
		if l, there := r.Links[uid]; there && l.Current && l.Up {
			c.Container.Task.Status = isolation.TaskRunning
			f.started = append(f.started, uid)
			return nil
		}
	}
	return fault.New(fault.Internal, "start", "a task without a guarded network")
}

func (f fakeIsolation) deleteTask(c *isolation.Have, uid spec.UID) {
	c.Container.Task, c.Cgroup, c.Nodes = isolation.Task{}, isolation.CgroupState{}, isolation.NodesState{}
	c.Pin, c.LogAlive = isolation.PinNone, false
	if !c.Container.Container && !c.Container.Snapshot {
		delete(f.containers, uid)
	}
	delete(f.granted, uid)
	for _, r := range f.routers {
		delete(r.Links, uid) // the link ends with its namespace
	}
}

// exit lets a running task end by itself.
func (p *pretend) exit(uid spec.UID, code int, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.containers[uid]
	c.Container.Task = isolation.Task{Status: isolation.TaskExited, Exit: &spec.ExitStatus{Code: code, At: at}}
	c.Cgroup.Populated = false
}

// fakeNetwork implements Network.
type fakeNetwork struct {
	*pretend
	*network.Planner
}

func (f fakeNetwork) Plan(want *network.VPC, uid spec.UID, have network.Have) (plan.Plan, error) {
	return network.NewPlanner("test").Plan(want, uid, have)
}

func (f fakeNetwork) Prove(context.Context, network.VPC, spec.UID) ([]spec.Control, error) {
	return nil, nil
}

func (f fakeNetwork) Observe(_ context.Context, vpc spec.UID) (network.Have, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looked++
	r := f.routers[vpc]
	if r == nil || f.blind != nil {
		return network.Have{}, f.blind
	}
	have := *r
	have.Links = maps.Clone(r.Links)
	return have, nil
}

func (f fakeNetwork) Apply(_ context.Context, s plan.Step, _ plan.Report) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.failure(s); err != nil {
		return err
	}
	switch args := s.Args.(type) {
	case network.OpenArgs:
		f.routers[spec.UID(s.Object)] = &network.Have{Namespace: true, Ready: true, Transit: args.Transit, Links: make(map[spec.UID]network.LinkState)}
	case network.LoadArgs:
		r := f.routers[spec.UID(s.Object)]
		f.count(r.Router, args.Rules.Router.State())
		r.Guard, r.Router = args.Rules.Guard.State(), args.Rules.Router.State()
	case network.EndpointArgs:
		return f.endpoint(s.Verb, args)
	default:
		f.count(f.routers[spec.UID(s.Object)].Router, nil)
		delete(f.routers, spec.UID(s.Object)) // close
	}
	return nil
}

// count makes counters that begin with a table and removes those that end with one.
func (f fakeNetwork) count(before, after *ruleset.State) {
	for uid := range f.counters {
		if counted(before, uid) && !counted(after, uid) {
			delete(f.counters, uid)
		}
	}
	if after == nil {
		return
	}
	for _, name := range after.Counters {
		if parts := strings.Split(name, "_"); len(parts) == 4 && !counted(before, spec.UID(parts[1])) {
			f.counters[spec.UID(parts[1])] = network.Traffic{}
		}
	}
}

func counted(table *ruleset.State, uid spec.UID) bool {
	return table != nil && slices.Contains(table.Counters, "c_"+string(uid)+"_intranet_ingress")
}

func (f fakeNetwork) Counters(_ context.Context, vpc spec.UID) (map[spec.UID]network.Traffic, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make(map[spec.UID]network.Traffic)
	for uid, t := range f.counters {
		if r := f.routers[vpc]; r != nil && counted(r.Router, uid) {
			out[uid] = t
		}
	}
	return out, nil
}

// packet is one that an instance sends, if it has a link.
func (p *pretend) packet(uid spec.UID) (sent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.routers {
		if l := r.Links[uid]; l.Up && counted(r.Router, uid) {
			t := p.counters[uid]
			t.InternetEgress.Packets++
			t.InternetEgress.Bytes += 100
			p.counters[uid] = t
			return true
		}
	}
	return false
}

func (f fakeNetwork) endpoint(verb string, args network.EndpointArgs) error {
	r := f.routers[args.VPC]
	if r == nil {
		return fault.New(fault.Internal, verb, "no router namespace")
	}
	switch verb {
	case network.VerbAttach:
		r.Links[args.Endpoint.Instance] = network.LinkState{Up: true, Current: true, Address: args.Endpoint.Address}
	case network.VerbDetach:
		delete(r.Links, args.Endpoint.Instance)
	}
	return nil
}

type fakeNVML struct{ inventory gpu.Inventory }

func (f fakeNVML) Inventory(context.Context) (gpu.Inventory, error) { return f.inventory, nil }

func (f fakeNVML) Samples(context.Context) ([]gpu.Sample, error) {
	var out []gpu.Sample
	for _, d := range f.inventory.Devices {
		used := uint64(0)
		out = append(out, gpu.Sample{UUID: d.UUID, MemoryUsedBytes: &used, Processes: new(int)})
	}
	return out, nil
}

type nobodyHolds struct{}

func (nobodyHolds) Holders(context.Context, uint32, uint32) ([]drivers.Holder, error) {
	return nil, nil
}

type noShared struct{ *pretend }

func (s noShared) Marked(context.Context) (Marked, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := Marked{Instances: make(map[spec.UID]string)}
	for uid := range s.routers {
		m.VPCs = append(m.VPCs, uid)
	}
	for uid := range s.containers {
		m.Instances[uid] = "acme"
	}
	return m, nil
}

func (noShared) DropLogs(context.Context, func(spec.UID) bool) error { return nil }

func (s noShared) Guard(_ context.Context, vpcs []network.VPC) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.noGuard == nil {
		s.guarded = vpcs
	}
	return s.noGuard
}

func (s noShared) Publish(context.Context, []network.VPC) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.noPublish
}

func (s noShared) Prove(_ context.Context, vpcs []network.VPC) (spec.Control, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return spec.Control{ID: "N8", Pass: len(s.guarded) == len(vpcs), Found: "another table"}, nil
}

func (noShared) Name(context.Context, []network.VPC) error  { return nil }
func (noShared) RemoveTenant(context.Context, string) error { return nil }

type noMetrics struct{ rules *atomic.Int64 }

func (noMetrics) ObserveStep(string, string, time.Duration, error) {}
func (m noMetrics) ObserveRules(time.Duration)                     { m.rules.Add(1) }

// bench is a store and a pretend host with an agent's loop on them.
type bench struct {
	*pretend
	t      *testing.T
	store  *store.Store
	loop   *Loop
	cancel func()
	stop   func()
	at     func(when string, s plan.Step)
	rules  atomic.Int64 // changed rules that the metrics were told of
}

func newBench(t *testing.T) *bench {
	t.Helper()
	s, err := store.Open(filepath.Join(t.TempDir(), "state.db"), store.Options{Now: time.Now, BootID: "boot", Key: make([]byte, 32), Volatile: true})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{pretend: newPretend(), t: t, store: s}
	t.Cleanup(func() { b.halt(); _ = s.Close() })
	return b
}

// onBench runs f in a bubble of its own time, with an agent on an empty host.
func onBench(t *testing.T, f func(t *testing.T, b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run()
		defer b.halt()
		f(t, b)
	})
}

// run starts a new agent's loop on the host.
func (b *bench) run() {
	b.t.Helper()
	scenario, err := sim.Find("dgx-h100")
	if err != nil {
		b.t.Fatal(err)
	}
	room := drivers.New(drivers.Deps{NVML: fakeNVML{scenario.Inventory("seed")}, Ledger: b.store.Ledger(), Holders: nobodyHolds{}, Resetter: sim.Resetter{}, BootID: "boot"})
	b.loop = New(Deps{
		Store: b.store, Drivers: room, Isolation: fakeIsolation{b.pretend}, Network: fakeNetwork{b.pretend, network.NewPlanner("test")}, Shared: noShared{b.pretend}, Metrics: noMetrics{&b.rules},
		Settings: Settings{
			Protected: func() []netip.Prefix { return nil },
			CPUs:      64_000, Memory: 1 << 40, UIDStart: 1 << 20, UIDSize: 100 * rangeSize,
			TransitPool: mustPrefix("100.127.0.0/24"), NetnsDir: "/run/netns", Nameserver: "169.254.169.253", Small: small(), Development: true,
		},
		Now: time.Now, Log: quiet(),
		AtStep: func(when string, s plan.Step) {
			if b.at != nil {
				b.at(when, s)
			}
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel = cancel
	done := make(chan error, 1)
	if err := b.loop.Recover(ctx); err != nil {
		b.t.Fatal(err)
	}
	go func(l *Loop) { done <- l.Run(ctx) }(b.loop)
	b.stop = func() { cancel(); <-done }
}

func (b *bench) halt() {
	if b.stop != nil {
		b.stop()
		b.stop = nil
	}
}

func (b *bench) write(objects ...*spec.Object) {
	b.t.Helper()
	if _, err := b.loop.Write(b.t.Context(), objects, WriteOptions{Source: spec.SourceAPI, Actor: "test"}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) get(name string) *spec.Object {
	b.t.Helper()
	o, err := b.store.Get(spec.Ref{Kind: spec.KindInstance, Tenant: "acme", Name: name})
	if err != nil {
		b.t.Fatal(err)
	}
	return o
}

// instance is what a person would write.
func instance(name string, gpus int) *spec.Object {
	o := &spec.Object{Kind: spec.KindInstance, Metadata: spec.Metadata{Tenant: "acme", Name: name}, Spec: &spec.InstanceSpec{
		Image: "busybox:1", GPUs: spec.GPURequest{Count: gpus},
		Resources: spec.ResourcesSpec{CPUs: 1000, Memory: 1 << 30, Pids: 100, Shm: 1 << 20},
	}}
	spec.Default(o)
	return o
}

// neverBroken are the laws that hold at every moment, whatever crashed: no GPU in
// two tasks, none in a task while the ledger does not give it to that task.
func (b *bench) neverBroken() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	entries, err := b.store.Ledger().Entries(context.Background())
	if err != nil {
		return err
	}
	owner := make(map[gpu.UUID]spec.UID)
	for uid, lease := range b.granted {
		for _, d := range lease.GPUs {
			if other, twice := owner[d.UUID]; twice {
				return fmt.Errorf("%s is in %s and %s", d.UUID, uid, other)
			}
			owner[d.UUID] = uid
			if e := entries[d.UUID]; e.Owner != uid || e.State == drivers.Free {
				return fmt.Errorf("%s is in %s while the ledger says %s of %q", d.UUID, uid, e.State, e.Owner)
			}
		}
	}
	return nil
}
