package reconcile

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
)

// slowly makes the steps of one verb take an hour, and tells of those that were
// given up before.
func (b *bench) slowly(verb string) (interrupted *int) {
	interrupted = new(int)
	b.slow = func(ctx context.Context, s plan.Step) error {
		if s.Verb != verb {
			return nil
		}
		select {
		case <-time.After(time.Hour):
			return nil
		case <-ctx.Done():
			*interrupted++
			return fault.Wrap(fault.Internal, "apply", ctx.Err())
		}
	}
	return interrupted
}

func TestAPullEndsWithTheWishForItsImage(t *testing.T) {
	other := func(b *bench) {
		o := instance("a", 1)
		o.Spec.(*spec.InstanceSpec).Image = "busybox:2"
		b.write(o)
	}
	more := func(b *bench) {
		o := instance("a", 1)
		o.Spec.(*spec.InstanceSpec).Resources.Pids = 200
		b.write(o)
	}
	for name, row := range map[string]struct {
		act         func(*bench)
		interrupted int
		want        func(*bench) bool
	}{
		"deleted":         {func(b *bench) { b.remove("a") }, 1, func(b *bench) bool { return len(b.containers) == 0 }},
		"stopped":         {func(b *bench) { b.verb("a", "stop") }, 1, func(b *bench) bool { return b.phase("a") == spec.PhaseStopped }},
		"another image":   {other, 1, func(b *bench) bool { return b.phase("a") == spec.PhasePulling }},
		"another limit":   {more, 0, func(b *bench) bool { return b.phase("a") == spec.PhasePulling }},
		"asked for again": {func(b *bench) { b.verb("a", "restart") }, 0, func(b *bench) bool { return b.phase("a") == spec.PhasePulling }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				interrupted := b.slowly(isolation.VerbPrepareImage)
				b.run()
				defer b.halt()
				b.write(instance("a", 1))
				settle()
				if got := b.phase("a"); got != spec.PhasePulling {
					t.Fatalf("a is %s", got)
				}
				row.act(b)
				settle()
				if *interrupted != row.interrupted || !row.want(b) {
					t.Errorf("%d pulls were given up, want %d; %+v", *interrupted, row.interrupted, b.containers)
				}
			})
		})
	}
}

func TestNoOtherStepIsGivenUp(t *testing.T) {
	for _, verb := range []string{isolation.VerbMakeCgroup, isolation.VerbMakeNodes, isolation.VerbCreate, isolation.VerbStart, isolation.VerbAudit} {
		t.Run(verb, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				interrupted := b.slowly(verb)
				b.run()
				defer b.halt()
				b.write(instance("a", 1))
				settle()
				b.remove("a")
				settle()
				if *interrupted > 0 {
					t.Error("it was given up")
				}
				time.Sleep(2 * time.Hour)
				synctest.Wait()
				b.nothingLeft()
			})
		})
	}
}

// A task may have ended before the run of its lane failed, whatever it failed of.
func TestAFailedRunDoesNotClaimADeadTask(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		b.write(instance("a", 1))
		settle()
		o := b.get("a")
		if o.Status.Instance.Pid == 0 {
			t.Fatal("it has no pid")
		}
		b.exit(o.Metadata.UID, 1, time.Now())
		b.slow = func(_ context.Context, s plan.Step) error {
			if s.Verb == isolation.VerbDeleteTask {
				return fault.New(fault.Temporary, "delete task", "containerd is away")
			}
			return nil
		}
		b.loop.TriggerInstance(o.Metadata.UID)
		settle()
		if got := b.get("a").Status; got.Instance.Pid != 0 || got.Phase == spec.PhaseRunning {
			t.Errorf("%s with pid %d", got.Phase, got.Instance.Pid)
		}
	})
}
