package reconcile

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// Whatever is asked of a lane while it runs, it is at rest only once a run that
// began later has done all there was to do.
func TestALaneIsNeverAtRestWithWorkLeft(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		gaps := rapid.SliceOfN(rapid.IntRange(0, 2500), 1, 20).Draw(rt, "gaps in ms")
		wrong := false
		synctest.Test(t, func(t *testing.T) { wrong = restsWithWorkLeft(t, gaps) })
		if wrong {
			rt.Fatal("a lane is at rest with work left")
		}
	})
}

func restsWithWorkLeft(t *testing.T, gaps []int) (wrong bool) {
	var wanted, done int
	var l *lanes
	l = newLanes(quiet(), func(_ context.Context, key string) (time.Duration, error) {
		asked := l.begin(key)
		seen := wanted
		time.Sleep(time.Second)
		done = seen
		l.rest(key, asked)
		return 0, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { l.run(ctx); close(ended) }()
	for _, gap := range gaps {
		wanted++
		l.trigger("a")
		time.Sleep(time.Duration(gap) * time.Millisecond)
		synctest.Wait()
		wrong = wrong || l.atRest("a") && done != wanted
	}
	time.Sleep(time.Minute)
	synctest.Wait()
	wrong = wrong || !l.atRest("a") || done != wanted || !l.resting()["a"]
	cancel()
	<-ended
	return wrong
}

func TestALaneThatIsDisturbedOrNewIsNotAtRest(t *testing.T) {
	l := newLanes(quiet(), nil)
	if l.atRest("a") {
		t.Error("a lane nobody knows is at rest")
	}
	l.rest("a", l.begin("a"))
	if !l.atRest("a") {
		t.Error("a lane that is done is not at rest")
	}
	l.disturb("a")
	if l.atRest("a") {
		t.Error("a disturbed lane is at rest")
	}
	asked := l.begin("a")
	l.disturb("a")
	l.rest("a", asked)
	if l.atRest("a") {
		t.Error("what disturbed a lane at work is forgotten")
	}
}
