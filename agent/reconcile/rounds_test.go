package reconcile

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// diary is when each instance was audited.
type diary struct {
	mu sync.Mutex
	at map[string][]time.Time
}

func (d *diary) read(_ context.Context, a Audited) ([]spec.Control, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at[a.Object.Metadata.Name] = append(d.at[a.Object.Metadata.Name], time.Now())
	return []spec.Control{{ID: "D1", Pass: true}}, nil
}

func (d *diary) audits(name string) []time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.at[name]
}

// rounds audits until the test ends.
func (b *bench) rounds(t *testing.T, interval time.Duration, read AuditRead) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- b.loop.AuditRounds(ctx, func() time.Duration { return interval }, read, func(*spec.Object, []spec.Control, error) {})
	}()
	t.Cleanup(func() { cancel(); <-done })
}

// Whoever comes and goes, each instance is audited within the interval, and not
// all at one moment.
func TestRoundsReachEveryInstanceWithinTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const interval, n = 50 * time.Second, 20
		b := newBench(t)
		b.run()
		defer b.halt()
		var all []*spec.Object
		for i := range n {
			all = append(all, instance(fmt.Sprint("i", i), 0))
		}
		b.write(all[:n/2]...)
		settle()
		d := &diary{at: make(map[string][]time.Time)}
		begin := time.Now()
		b.rounds(t, interval, d.read)
		time.Sleep(time.Second)
		for i := range n / 2 {
			if at := d.audits(fmt.Sprint("i", i)); len(at) == 0 || at[0] != begin {
				t.Fatalf("%d was audited at %v, want at once", i, at)
			}
		}
		b.write(all[n/2:]...)
		b.remove("i0")
		time.Sleep(10 * interval)
		moments := make(map[time.Time]int)
		for i := 1; i < n; i++ {
			last := begin
			at := d.audits(fmt.Sprint("i", i))
			for _, now := range append(at, time.Now()) {
				if gap := now.Sub(last); gap > interval+2*auditLook {
					t.Errorf("%d was not audited for %s", i, gap)
				}
				last = now
			}
			for _, now := range at[1:] {
				moments[now.Truncate(time.Second)]++
			}
		}
		for at, count := range moments {
			if count > n/2 {
				t.Errorf("%d audits at %s", count, at)
			}
		}
		if at := d.audits("i0"); time.Since(at[len(at)-1]) < interval {
			t.Error("an instance that is gone is audited")
		}
	})
}

func TestRoundsComeBackToWhatWasBusyOrCouldNotBeRead(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		b.write(instance("a", 0), instance("b", 0))
		settle()
		release := make(chan struct{})
		go func() {
			_ = b.loop.lanes.with(t.Context(), laneOf(b.get("a")), func(context.Context) error { <-release; return nil })
		}()
		synctest.Wait()
		d := &diary{at: make(map[string][]time.Time)}
		fails := true
		b.rounds(t, time.Hour, func(ctx context.Context, a Audited) ([]spec.Control, error) {
			if a.Object.Metadata.Name == "b" && fails {
				fails = false
				return nil, fault.New(fault.Temporary, "read", "not now")
			}
			return d.read(ctx, a)
		})
		time.Sleep(2 * auditFailed)
		synctest.Wait()
		if len(d.audits("a")) != 0 || len(d.audits("b")) != 1 {
			t.Errorf("a was audited %d times while its lane was at work, b %d times after a failure", len(d.audits("a")), len(d.audits("b")))
		}
		close(release)
		time.Sleep(time.Second)
		synctest.Wait()
		if len(d.audits("a")) != 1 {
			t.Errorf("a was audited %d times once its lane was free", len(d.audits("a")))
		}
	})
}

// What only waits to run has nothing to audit, and nothing is complained of.
func TestRoundsPassOverWhatDoesNotRun(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		b.write(instance("a", 8))
		settle()
		b.verb("a", "stop")
		settle()
		d := &diary{at: make(map[string][]time.Time)}
		b.rounds(t, time.Minute, d.read)
		time.Sleep(10 * time.Minute)
		if n := len(d.audits("a")); n > 0 {
			t.Errorf("%d audits of an instance that is stopped", n)
		}
	})
}

// A new interval counts from now on: nobody waits for the moment that the old one,
// an hour long, would have given.
func TestRoundsTakeOverANewInterval(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		b.write(instance("a", 0))
		settle()
		var interval atomic.Int64
		interval.Store(int64(time.Hour))
		d := &diary{at: make(map[string][]time.Time)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		every := func() time.Duration { return time.Duration(interval.Load()) }
		go func() { done <- b.loop.AuditRounds(ctx, every, d.read, func(*spec.Object, []spec.Control, error) {}) }()
		t.Cleanup(func() { cancel(); <-done })
		time.Sleep(auditLook)
		interval.Store(int64(5 * time.Second))
		begin := len(d.audits("a"))
		time.Sleep(time.Minute)
		if n := len(d.audits("a")) - begin; n < 11 {
			t.Errorf("%d audits in a minute of an interval of 5 s", n)
		}
	})
}

// One tenant's busy network holds nobody else's audit, and of his instances what is
// known is told; what is not is read once it can be.
func TestABusyNetworkHoldsNobodyElsesAudit(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		other := instance("z", 0)
		other.Metadata.Tenant = "other"
		all := []*spec.Object{other}
		for i := range 4 * runtime.GOMAXPROCS(0) {
			all = append(all, instance(fmt.Sprint("a", i), 0))
		}
		b.write(all...)
		settle()
		vpc, err := b.store.Get(spec.Ref{Kind: spec.KindNetwork, Tenant: "acme", Name: "default"})
		if err != nil {
			t.Fatal(err)
		}
		release := make(chan struct{})
		go func() {
			_ = b.loop.lanes.with(t.Context(), laneOf(vpc), func(context.Context) error { <-release; return nil })
		}()
		synctest.Wait()
		var mu sync.Mutex
		known, unknown := make(map[string]int), make(map[string]int)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		read := func(context.Context, Audited) ([]spec.Control, error) {
			return []spec.Control{{ID: "D1", Pass: true}}, nil
		}
		tell := func(o *spec.Object, controls []spec.Control, err error) {
			mu.Lock()
			defer mu.Unlock()
			if len(controls) == 0 || controls[0].ID != "D1" {
				t.Errorf("of %s is told %v, %v", o.Ref(), controls, err)
			}
			if len(controls) > 1 {
				known[o.Metadata.Name]++
			} else if err != nil {
				unknown[o.Metadata.Name]++
			}
		}
		go func() { done <- b.loop.AuditRounds(ctx, func() time.Duration { return time.Minute }, read, tell) }()
		defer func() { cancel(); <-done }()
		synctest.Wait()
		mu.Lock()
		if known["z"] != 1 {
			t.Error("an instance of another tenant waits")
		}
		mu.Unlock()
		time.Sleep(30 * time.Second)
		synctest.Wait()
		mu.Lock()
		if len(known) != 1 || len(unknown) != len(all)-1 || unknown["a0"] != 1 {
			t.Errorf("while the network is busy: known %v, told as unknown %v", known, unknown)
		}
		mu.Unlock()
		report, err := b.loop.Audit(t.Context(), b.get("a0"), read)
		if n := len(report); err != nil || n == 0 || report[n-1].Pass {
			t.Errorf("asked for, the audit is %+v, %v; want one that has not passed", report, err)
		}
		close(release)
		time.Sleep(auditUnknown + roundPatience)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if len(known) != len(all) {
			t.Errorf("once it is free: known %v", known)
		}
	})
}
