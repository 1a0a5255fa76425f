package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestLaneRunsNeverOverlapAndTriggersCoalesce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most, runs atomic.Int32
		l := newLanes(quiet(), func(context.Context, string) (time.Duration, error) {
			most.Store(max(most.Load(), running.Add(1)))
			time.Sleep(time.Second)
			running.Add(-1)
			runs.Add(1)
			return 0, nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { l.run(ctx); close(done) }()
		l.trigger("a")
		synctest.Wait()
		for range 10 {
			l.trigger("a")
		}
		time.Sleep(time.Minute)
		if most.Load() != 1 || runs.Load() != 2 {
			t.Errorf("at once %d, runs %d; want 1 at once and 2 runs", most.Load(), runs.Load())
		}
		cancel()
		<-done
	})
}

func TestLanesOfDifferentKeysRunSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running atomic.Int32
		l := newLanes(quiet(), func(ctx context.Context, _ string) (time.Duration, error) {
			running.Add(1)
			<-ctx.Done()
			return 0, nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { l.run(ctx); close(done) }()
		l.trigger("a")
		l.trigger("b")
		synctest.Wait()
		if running.Load() != 2 {
			t.Errorf("%d lanes run, want 2", running.Load())
		}
		cancel()
		<-done
	})
}

func TestFailedRunIsTriedAgainWithGrowingPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		start := time.Now()
		l := newLanes(quiet(), func(context.Context, string) (time.Duration, error) {
			at = append(at, time.Since(start))
			if len(at) < 4 {
				return 0, errors.New("not yet")
			}
			return 0, nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { l.run(ctx); close(done) }()
		l.trigger("a")
		time.Sleep(time.Hour)
		synctest.Wait()
		want := []time.Duration{0, 500 * time.Millisecond, 1500 * time.Millisecond, 3500 * time.Millisecond}
		if len(at) != len(want) {
			t.Fatalf("ran at %v, want %v", at, want)
		}
		for i := range want {
			if at[i] != want[i] {
				t.Errorf("run %d at %v, want %v", i, at[i], want[i])
			}
		}
		cancel()
		<-done
	})
}

func TestTriggerBeforeRunIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int32
		l := newLanes(quiet(), func(context.Context, string) (time.Duration, error) { runs.Add(1); return 0, nil })
		l.trigger("early")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { l.run(ctx); close(done) }()
		synctest.Wait()
		if runs.Load() != 1 {
			t.Errorf("%d runs, want 1", runs.Load())
		}
		cancel()
		<-done
	})
}

// A lane that is forgotten while a caller waits for it, or runs in it, is still
// the only one of its key.
func TestAForgottenLaneInUseHasNoSecondBesideIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int32
		run := func() {
			most.Store(max(most.Load(), running.Add(1)))
			time.Sleep(time.Second)
			running.Add(-1)
		}
		var l *lanes
		l = newLanes(quiet(), func(_ context.Context, key string) (time.Duration, error) {
			run()
			l.forget(key)
			return 0, nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { l.run(ctx); close(done) }()
		l.trigger("a")
		synctest.Wait()
		for range 2 { // both wait for the run that forgets
			go func() {
				if err := l.with(ctx, "a", func(context.Context) error { run(); return nil }); err != nil {
					t.Error(err)
				}
			}()
		}
		time.Sleep(1500 * time.Millisecond) // the first of them runs
		synctest.Wait()
		l.trigger("a")
		go func() { _ = l.do(ctx, "a") }()
		time.Sleep(time.Minute)
		synctest.Wait()
		if most.Load() != 1 {
			t.Errorf("%d runs of one key at a time", most.Load())
		}
		l.mu.Lock()
		left := len(l.lane)
		l.mu.Unlock()
		if left != 0 {
			t.Errorf("%d lanes are left of an object that is gone", left)
		}
		cancel()
		<-done
	})
}
