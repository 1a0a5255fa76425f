package reconcile

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
)

// A hand-over that was planned while an instance was stopped may still be
// draining its GPUs: a start waits for it instead of counting on what the ledger
// says meanwhile.
func TestAStartWaitsForAHandoverUnderWay(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		settle()
		release := make(chan struct{})
		go func() {
			_ = b.loop.lanes.with(t.Context(), laneGPUs, func(context.Context) error { <-release; return nil })
		}()
		synctest.Wait()
		b.write(instance("a", 2))
		settle()
		if len(b.log) > 0 {
			t.Errorf("while a hand-over was under way these were done: %v", b.log)
		}
		close(release)
		settle()
		if got := b.phase("a"); got != spec.PhaseRunning {
			t.Errorf("a is %s", got)
		}
	})
}

// After an older state file was restored a task may run that nobody knows: its
// GPUs go to nobody before it is gone.
func TestAStrangersGPUsAreNotGivenOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.at = func(string, plan.Step) {
			if err := b.neverBroken(); err != nil {
				t.Error(err)
			}
		}
		b.run()
		settle()
		b.write(instance("a", 8))
		settle()
		stranger := b.get("a").Metadata.UID
		b.halt()
		if err := b.store.Remove(stranger); err != nil {
			t.Fatal(err)
		}
		release := make(chan struct{})
		b.slow = func(context.Context, plan.Step) error { <-release; return nil }
		b.run()
		defer b.halt()
		if _, err := b.loop.Write(t.Context(), []*spec.Object{instance("b", 8)}, WriteOptions{Source: spec.SourceAPI}); !fault.Is(err, fault.Exhausted) {
			t.Errorf("GPUs that a stranger holds: %v", err)
		}
		close(release)
		settle()
		b.write(instance("b", 8))
		settle()
		if _, there := b.containers[stranger]; there {
			t.Error("the stranger is still there")
		}
		if got := b.phase("b"); got != spec.PhaseRunning {
			t.Errorf("b is %s: %+v", got, b.get("b").Status)
		}
	})
}

func TestAFenceOutlivesTheAgentAndEndsWithARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.run()
		b.write(instance("a", 1))
		settle()
		o := b.get("a")
		control := spec.Control{ID: "D2", Name: "outer device program", Expected: "ours", Found: "none"}
		if err := b.loop.Suspect(t.Context(), o, control, true); err != nil {
			t.Fatal(err)
		}
		fenced := func(when string) {
			t.Helper()
			settle()
			if got := b.containers[o.Metadata.UID].Cgroup.Program; b.phase("a") != spec.PhaseFenced || got != isolation.ProgramDeny {
				t.Errorf("%s a is %s and its program is %q", when, b.phase("a"), got)
			}
		}
		fenced("after the audit")
		b.halt()
		b.run()
		defer b.halt()
		fenced("under the next agent")
		b.verb("a", "start")
		settle()
		if got := b.phase("a"); got != spec.PhaseRunning {
			t.Errorf("after a start a is %s", got)
		}
	})
}

func TestWhatAFileOwnsIsNotStoppedByHand(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		if err := b.loop.WriteFiles(t.Context(), []*spec.Object{instance("a", 0)}); err != nil {
			t.Fatal(err)
		}
		settle()
		_, _, err := b.loop.SetState(t.Context(), b.get("a").Ref(), "stop", "test")
		if !fault.Is(err, fault.Conflict) || fault.HintOf(err) == "" {
			t.Errorf("got %v, hint %q", err, fault.HintOf(err))
		}
	})
}

func TestAGroupThatRulesNameIsKept(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		group := func(name, remote string) *spec.Object {
			return &spec.Object{Kind: spec.KindSecurityGroup, Metadata: spec.Metadata{Tenant: "acme", Name: name}, Spec: &spec.SecurityGroupSpec{
				Ingress: []spec.Rule{{Action: "accept", Protocol: "all", Remote: remote}},
			}}
		}
		b.write(group("clients", "0.0.0.0/0"), group("web", "sg:clients"))
		ref := spec.Ref{Kind: spec.KindSecurityGroup, Tenant: "acme", Name: "clients"}
		if _, err := b.loop.Delete(ref, 0, "test"); !fault.Is(err, fault.Busy) {
			t.Errorf("deleting a group that another's rule names: %v", err)
		}
	})
}
