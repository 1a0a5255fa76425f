package isolation

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

func drawLease(t *rapid.T) Lease {
	l := testLease()
	l.Want = rapid.SampledFrom([]Want{WantRunning, WantRunning, WantStopped, WantAbsent}).Draw(t, "want")
	l.Image = rapid.SampledFrom([]string{"busybox", "debian"}).Draw(t, "image")
	l.Command = rapid.SampledFrom([][]string{nil, {"a"}, {"a", "b"}}).Draw(t, "command")
	l.User = rapid.SampledFrom([]string{"", "7:7"}).Draw(t, "user")
	l.RestartToken = rapid.SampledFrom([]string{"", "1"}).Draw(t, "restart")
	l.GPUs = nil
	for minor := range uint32(3) {
		if rapid.Bool().Draw(t, "gpu") {
			l.GPUs = append(l.GPUs, Device{UUID: gpu.UUID(rune('a' + minor)), Minor: minor})
		}
	}
	return l
}

// drawHost is a host in any state that earlier leases, interruptions and
// accidents can leave.
func drawHost(t *rapid.T) *fake {
	f := &fake{guard: true, reserved: true, deaf: rapid.Bool().Draw(t, "deaf")}
	for range rapid.IntRange(0, 2).Draw(t, "earlier leases") {
		f.failAt = f.operations + rapid.IntRange(1, 60).Draw(t, "failure")
		_ = pursue(f, drawLease(t))
		accident(t, f)
	}
	f.failAt = 0
	return f
}

func accident(t *rapid.T, f *fake) {
	switch rapid.IntRange(0, 8).Draw(t, "accident") {
	case 0:
		if f.task.Status == TaskRunning {
			f.end(1)
		}
	case 1:
		if f.task.Status == TaskRunning {
			f.end(1)
			f.lose()
		}
	case 2:
		f.log = false
	case 3:
		f.pin = 0
	case 4:
		f.nodes = nil
	case 5:
		f.cgroup.Program = ProgramNone
	case 6: // a reboot: only what containerd keeps on disk is left
		started := f.started
		f.task, f.cgroup, f.nodes, f.pin, f.log, f.granted = Task{}, CgroupState{}, nil, 0, false, ""
		if started {
			f.task = Task{Status: TaskExited, Exit: &spec.ExitStatus{Unknown: true, At: testTime}}
		}
	}
}

// pursue observes, plans and applies once, in a process of its own.
func pursue(f *fake, want Lease) error {
	ctx := context.Background()
	room := f.room()
	have, err := room.Observe(ctx, want)
	if err != nil {
		return err
	}
	ordered, err := Plan(want, have, testTime).Ordered()
	if err != nil {
		return err
	}
	for _, step := range ordered.Steps {
		if err := room.Apply(ctx, step, func(plan.Progress) {}); err != nil {
			return err
		}
	}
	return nil
}

func observed(t *rapid.T, f *fake, want Lease) Have {
	have, err := f.room().Observe(context.Background(), want)
	if err != nil {
		t.Fatalf("observe: %v", err)
	}
	return have
}

func checkConverged(t *rapid.T, f *fake, want Lease) {
	have := observed(t, f, want)
	if left := Plan(want, have, testTime); !left.Empty() {
		t.Fatalf("not converged:\n%s\nhave %+v", left.Text(), have)
	}
	if have.Running() != (want.Want == WantRunning) {
		t.Fatalf("running %v, want %s", have.Running(), want.Want)
	}
	if want.Want == WantAbsent && (have.Container.Container || have.Container.Snapshot || f.etc || len(have.remains()) > 0) {
		t.Fatalf("something is left: %+v", have)
	}
	if len(f.broken) > 0 {
		t.Fatalf("orders broken: %v", f.broken)
	}
}

func TestLawConvergentAndMinimal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, want := drawHost(t), drawLease(t)
		if err := pursue(f, want); err != nil {
			t.Fatalf("pursue: %v", err)
		}
		checkConverged(t, f, want)
	})
}

func TestLawIdempotent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, want := drawHost(t), drawLease(t)
		room := f.room()
		p, err := Plan(want, observed(t, f, want), testTime).Ordered()
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range p.Steps {
			if err := room.Apply(t.Context(), step, nil); err != nil {
				t.Fatalf("%s: %v", step.ID, err)
			}
			if step.Verb == VerbAudit { // good for one start, and the task must wait for it
				continue
			}
			before := *f
			if err := room.Apply(t.Context(), step, nil); err != nil {
				t.Fatalf("%s again: %v", step.ID, err)
			}
			if diff := cmp.Diff(observed(t, &before, want), observed(t, f, want)); diff != "" {
				t.Fatalf("%s again changed:\n%s", step.ID, diff)
			}
		}
		checkConverged(t, f, want)
	})
}

func TestLawCrashSafe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, want := drawHost(t), drawLease(t)
		f.failAt = f.operations + rapid.IntRange(1, 80).Draw(t, "crash")
		if err := pursue(f, want); err != nil && !errors.Is(err, errInjected) {
			t.Fatalf("pursue: %v", err)
		}
		f.failAt = 0
		if err := pursue(f, want); err != nil {
			t.Fatalf("pursue after the crash: %v", err)
		}
		checkConverged(t, f, want)
	})
}

// TestNothingStartsUnproved holds what the whole host rests on.
func TestNothingStartsUnproved(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, want := drawHost(t), drawLease(t)
		running := f.task.Status == TaskRunning
		f.guard = rapid.Bool().Draw(t, "guard")
		f.badAudit = f.guard
		_ = pursue(f, want)
		if f.task.Status == TaskRunning && !running {
			t.Fatal("a task was started without guard or with a failed audit")
		}
		if len(f.broken) > 0 {
			t.Fatalf("orders broken: %v", f.broken)
		}
	})
}
