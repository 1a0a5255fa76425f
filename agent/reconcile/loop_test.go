package reconcile

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/agent/store"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/isolation"
)

func mustPrefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// settle lets every lane come to rest, hand-over and restart pauses included.
func settle() { time.Sleep(time.Minute); synctest.Wait() }

func (b *bench) phase(name string) spec.Phase {
	o := b.get(name)
	if o.Status == nil {
		return ""
	}
	return o.Status.Phase
}

func (b *bench) states() map[drivers.State]int {
	b.t.Helper()
	entries, err := b.store.Ledger().Entries(context.Background())
	if err != nil {
		b.t.Fatal(err)
	}
	out := make(map[drivers.State]int)
	for _, e := range entries {
		out[e.State]++
	}
	return out
}

func TestLifeOfAnInstance(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		settle()
		b.write(instance("a", 2), instance("b", 2))
		settle()
		for _, name := range []string{"a", "b"} {
			if got := b.phase(name); got != spec.PhaseRunning {
				t.Errorf("%s is %s: %+v", name, got, b.get(name).Status)
			}
		}
		if got := b.states(); got[drivers.Assigned] != 4 || got[drivers.Free] != 4 {
			t.Errorf("the ledger holds %v, want 4 assigned and 4 free", got)
		}
		ref := b.get("a").Ref()
		if _, _, err := b.loop.SetState(t.Context(), ref, "stop", "test"); err != nil {
			t.Fatal(err)
		}
		settle()
		if got := b.states(); b.phase("a") != spec.PhaseStopped || got[drivers.Assigned] != 2 {
			t.Errorf("after stop a is %s and the ledger holds %v", b.phase("a"), got)
		}
		if _, _, err := b.loop.SetState(t.Context(), ref, "start", "test"); err != nil {
			t.Fatal(err)
		}
		settle()
		if got := b.phase("a"); got != spec.PhaseRunning {
			t.Errorf("after start a is %s", got)
		}
		for _, name := range []string{"a", "b"} {
			if _, err := b.loop.Delete(b.get(name).Ref(), 0, "test"); err != nil {
				t.Fatal(err)
			}
		}
		settle()
		b.nothingLeft()
	})
}

func (b *bench) nothingLeft() {
	b.t.Helper()
	if len(b.containers) > 0 || len(b.routers) > 0 {
		b.t.Errorf("left: %d containers, %d router namespaces", len(b.containers), len(b.routers))
	}
	if got := b.states(); got[drivers.Free] != 8 {
		b.t.Errorf("the ledger holds %v, want 8 free", got)
	}
	if list, _ := b.store.List(spec.KindInstance, ""); len(list) > 0 {
		b.t.Errorf("%d instances are stored", len(list))
	}
}

func TestRestartPolicyBringsAFailedTaskBackAndLetsADoneOneRest(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		o := instance("a", 1)
		o.Spec.(*spec.InstanceSpec).Restart = spec.RestartOnFailure
		b.write(o)
		settle()
		uid := b.get("a").Metadata.UID
		b.exit(uid, 1, time.Now())
		b.loop.TriggerInstance(uid)
		settle()
		if got := b.get("a").Status; got.Phase != spec.PhaseRunning || got.Instance.Restarts != 1 || got.Instance.LastExit.Code != 1 {
			t.Errorf("after a failure: %+v, %+v", got, got.Instance)
		}
		b.exit(uid, 0, time.Now())
		b.loop.TriggerInstance(uid)
		settle()
		if got := b.states(); b.phase("a") != spec.PhaseStopped || got[drivers.Assigned] != 0 {
			t.Errorf("after a clean end a is %s and the ledger holds %v", b.phase("a"), got)
		}
	})
}

// A short run has ended before the loop looks at what it started.
func TestRunsThatEndAtOnceAreCounted(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		o := instance("a", 1)
		o.Spec.(*spec.InstanceSpec).Restart = spec.RestartOnFailure
		b.write(o)
		settle()
		uid := b.get("a").Metadata.UID
		for range 2 {
			b.exit(uid, 1, time.Now())
			if err := b.store.UpdateRecord(uid, func(r *store.Record) { r.Pid = 0 }); err != nil {
				t.Fatal(err)
			}
			b.loop.TriggerInstance(uid)
			settle()
		}
		if got := b.get("a").Status.Instance.Restarts; got != 2 {
			t.Errorf("%d restarts, want 2", got)
		}
	})
}

func TestAFailedStepEndsTheChangeAndIsTriedAgain(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		o := instance("a", 0)
		b.write(o)
		uid := b.get("a").Metadata.UID
		b.mu.Lock()
		b.fail[plan.MakeID(plan.Isolation, isolation.VerbCreate, string(uid))] = fault.New(fault.Temporary, "create", "containerd is away")
		b.mu.Unlock()
		settle()
		if b.phase("a") != spec.PhaseRunning {
			t.Errorf("a is %s", b.phase("a"))
		}
	})
}

// The same plan shown before is what is done after; a second plan is empty.
func TestPreviewIsWhatHappensAndConvergesToNothing(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		settle()
		planned, err := b.loop.Preview(t.Context(), []*spec.Object{instance("a", 2)})
		if err != nil {
			t.Fatal(err)
		}
		var shown []string
		for _, p := range planned {
			for _, s := range p.Plan.Steps {
				shown = append(shown, string(s.Room)+"/"+s.Verb)
			}
		}
		if len(b.log) > 0 {
			t.Fatalf("a preview did %v", b.log)
		}
		b.write(instance("a", 2))
		settle()
		var done []string
		ch, err := b.store.Changes(0)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range ch {
			if c.Object.Kind != spec.KindInstance && c.Object.Kind != spec.KindNetwork { // whose lane may come first
				continue
			}
			for _, s := range c.Steps {
				room, verb, _ := strings.Cut(s.ID, "/")
				verb, _, _ = strings.Cut(verb, " ")
				done = append(done, room+"/"+verb)
			}
		}
		if len(shown) == 0 || !slices.Equal(slices.Sorted(slices.Values(done)), slices.Sorted(slices.Values(shown))) {
			t.Errorf("shown %v\ndone %v", shown, done)
		}
		again, err := b.loop.Preview(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range again {
			if !p.Plan.Empty() {
				t.Errorf("after convergence %s still calls for\n%s", p.Object.Ref(), p.Plan.Text())
			}
		}
	})
}

// Crash-safe: stopped before or after any step, a new agent on the same host
// converges, no law is broken on the way, and nobody who ran is restarted.
func TestCrashAtEveryStepConverges(t *testing.T) {
	for n := 1; ; n++ {
		finished := false
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { finished = crashAt(t, n) })
		})
		if finished || t.Failed() {
			return
		}
	}
}

func crashAt(t *testing.T, n int) (finished bool) {
	b := newBench(t)
	defer b.halt()
	passed, crashed := 0, false
	b.at = func(string, plan.Step) {
		if err := b.neverBroken(); err != nil {
			t.Error(err)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if passed++; passed == n {
			crashed = true
			b.cancel() // every lane ends before its next step, as in a crash
		}
	}
	b.run()
	for _, act := range []func(){
		func() { b.write(instance("a", 2), instance("b", 3)) },
		func() {
			o := instance("a", 2)
			o.Spec.(*spec.InstanceSpec).Command = []string{"other"}
			b.write(o)
		},
		func() { b.verb("b", "stop") },
		func() { b.remove("a") },
		func() { b.remove("b") },
	} {
		act()
		settle()
		if b.crashedOnce(crashed) {
			b.halt()
			b.at = nil
			b.run()
			settle()
		}
	}
	if err := b.neverBroken(); err != nil {
		t.Error(err)
	}
	if starts := len(b.started); starts > 4 {
		t.Errorf("%d starts: a tenant that ran was restarted", starts)
	}
	b.nothingLeft()
	return !crashed
}

// crashedOnce is true the first time it is asked after the crash.
func (b *bench) crashedOnce(crashed bool) bool { return crashed && b.at != nil }

func (b *bench) verb(name, verb string) {
	b.t.Helper()
	if _, _, err := b.loop.SetState(b.t.Context(), b.get(name).Ref(), verb, "test"); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) remove(name string) {
	b.t.Helper()
	if _, err := b.loop.Delete(b.get(name).Ref(), 0, "test"); err != nil {
		b.t.Fatal(err)
	}
}

func TestWhatNobodyKnowsIsTakenAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run()
		b.write(instance("a", 0))
		settle()
		o := b.get("a")
		b.halt()
		if err := b.store.Remove(o.Metadata.UID); err != nil { // as if an older state file was restored
			t.Fatal(err)
		}
		b.run()
		defer b.halt()
		settle()
		b.nothingLeft()
	})
}

func TestFilesOwnTheirObjects(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		settle()
		if err := b.loop.WriteFiles(t.Context(), []*spec.Object{instance("a", 1), instance("b", 1)}); err != nil {
			t.Fatal(err)
		}
		settle()
		if b.phase("a") != spec.PhaseRunning || b.phase("b") != spec.PhaseRunning {
			t.Errorf("a is %s and b is %s", b.phase("a"), b.phase("b"))
		}
		if _, err := b.loop.Delete(b.get("a").Ref(), 0, "test"); !fault.Is(err, fault.Conflict) {
			t.Errorf("deleting what a file owns: %v", err)
		}
		if _, err := b.loop.Write(t.Context(), []*spec.Object{instance("a", 2)}, WriteOptions{Source: spec.SourceAPI}); !fault.Is(err, fault.Conflict) {
			t.Errorf("changing what a file owns: %v", err)
		}
		if err := b.loop.WriteFiles(t.Context(), []*spec.Object{instance("b", 1)}); err != nil {
			t.Fatal(err)
		}
		settle()
		if _, err := b.store.Get(spec.Ref{Kind: spec.KindInstance, Tenant: "acme", Name: "a"}); !fault.Is(err, fault.NotFound) {
			t.Errorf("a is still there: %v", err)
		}
		if b.phase("b") != spec.PhaseRunning {
			t.Errorf("b is %s", b.phase("b"))
		}
		if err := b.loop.WriteFiles(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		settle()
		b.nothingLeft()
	})
}

func TestWhatOthersStandOnIsKept(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		b.write(instance("a", 0))
		settle()
		for _, kind := range []spec.Kind{spec.KindSubnet, spec.KindNetwork, spec.KindSecurityGroup} {
			ref := spec.Ref{Kind: kind, Tenant: "acme", Name: "default"}
			if _, err := b.loop.Delete(ref, 0, "test"); !fault.Is(err, fault.Busy) {
				t.Errorf("deleting %s: %v", ref, err)
			}
		}
		if _, err := b.loop.Delete(spec.Ref{Kind: spec.KindTenant, Name: "acme"}, 0, "test"); !fault.Is(err, fault.Busy) {
			t.Errorf("deleting the tenant: %v", err)
		}
		b.remove("a")
		if _, err := b.loop.Delete(spec.Ref{Kind: spec.KindTenant, Name: "acme"}, 0, "test"); err != nil {
			t.Fatal(err)
		}
		settle()
		if all, _ := b.store.All(); len(all) > 0 {
			t.Errorf("%d objects of a removed tenant are left, %s among them", len(all), all[0].Ref())
		}
	})
}
