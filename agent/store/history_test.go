package store

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
)

func appendEvents(t testing.TB, s *Store, n int) {
	t.Helper()
	for i := range n {
		if err := s.AppendEvent(Event{Reason: "Test", Message: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
}

func sequence(events []Event) []uint64 {
	var all []uint64
	for _, e := range events {
		all = append(all, e.Seq)
	}
	return all
}

func TestEventsResume(t *testing.T) {
	s := fresh(t)
	appendEvents(t, s, 5)
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	appendEvents(t, s, 3) // five on disk, three waiting
	for name, c := range map[string]struct {
		after uint64
		limit int
		want  []uint64
	}{
		"all":               {0, 0, []uint64{1, 2, 3, 4, 5, 6, 7, 8}},
		"from the disk":     {1, 3, []uint64{2, 3, 4}},
		"across both":       {3, 4, []uint64{4, 5, 6, 7}},
		"only what waits":   {6, 0, []uint64{7, 8}},
		"nothing new":       {8, 0, nil},
		"from the future":   {800, 0, nil},
		"the first waiting": {5, 1, []uint64{6}},
	} {
		got, err := s.Events(c.after, c.limit)
		if diff := cmp.Diff(c.want, sequence(got)); diff != "" || err != nil {
			t.Errorf("%s: %v %s", name, err, diff)
		}
	}
}

// TestEventNumbersAreNotGivenTwice: a crash loses what waited, never a place in
// the stream.
func TestEventNumbersAreNotGivenTwice(t *testing.T) {
	s := fresh(t)
	appendEvents(t, s, 2)
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	appendEvents(t, s, 3)
	s = again(t, s)
	appendEvents(t, s, 1)
	got, err := s.Events(5, 0) // a reader had seen number 5
	if err != nil || len(got) != 1 {
		t.Errorf("a reader who saw lost events gets %v, %v", sequence(got), err)
	}
}

func TestEventsAreBounded(t *testing.T) {
	s := fresh(t)
	appendEvents(t, s, keptEvents+1500)
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	s = again(t, s)
	got, err := s.Events(0, 0)
	if err != nil || len(got) != keptEvents || got[0].Seq != 1501 {
		t.Errorf("%d events kept, from %d, %v", len(got), got[0].Seq, err)
	}
}

func TestNextEvent(t *testing.T) {
	s := fresh(t)
	first, second := s.NextEvent(), s.NextEvent()
	appendEvents(t, s, 2)
	<-first
	<-second
	select {
	case <-s.NextEvent():
		t.Error("there is no next event yet")
	default:
	}
}

func TestHistoryReachesTheDisk(t *testing.T) {
	t.Run("with the next write", func(t *testing.T) {
		s := fresh(t)
		appendEvents(t, s, 1)
		if err := s.PutChange(&Change{ID: "c", State: ChangeDone}); err != nil {
			t.Fatal(err)
		}
		apply(t, s, spec.SourceAPI, networkOf("acme", "a", "10.0.0.0/16"))
		wantHistory(t, again(t, s))
	})
	t.Run("after a second", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := fresh(t)
			appendEvents(t, s, 1)
			if err := s.PutChange(&Change{ID: "c", State: ChangeDone}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * flushAfter) // the bubble's clock: no time passes
			synctest.Wait()
			wantHistory(t, again(t, s))
		})
	})
	t.Run("at the end", func(t *testing.T) {
		s := fresh(t)
		appendEvents(t, s, 1)
		if err := s.PutChange(&Change{ID: "c", State: ChangeDone}); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		wantHistory(t, open(t, s.path))
	})
}

func wantHistory(t *testing.T, s *Store) {
	t.Helper()
	events, err := s.Events(0, 0)
	if err != nil || len(events) != 1 {
		t.Errorf("%d events, %v", len(events), err)
	}
	if _, err := s.Change("c"); err != nil {
		t.Error(err)
	}
}

func TestChanges(t *testing.T) {
	s := fresh(t)
	running := &Change{ID: "a", Verb: "create", State: ChangeRunning, Steps: []ChangeStep{{ID: "s", State: ChangeRunning, Progress: &plan.Progress{Done: 1}}}}
	for _, ch := range []*Change{running, {ID: "b", State: ChangeDone}} {
		if err := s.PutChange(ch); err != nil {
			t.Fatal(err)
		}
	}
	running.Steps[0].Progress.Done = 99 // the caller goes on with its own
	got, err := s.Change("a")
	if err != nil || got.Steps[0].Progress.Done != 1 {
		t.Errorf("the store shares the caller's steps: %+v, %v", got, err)
	}
	running.State = ChangeFailed
	if err := s.PutChange(running); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	s = again(t, s)
	all, err := s.Changes(0)
	if err != nil || len(all) != 2 || all[0].ID != "b" || all[1].State != ChangeFailed {
		t.Errorf("%+v, %v", all, err)
	}
	latest, _ := s.Changes(1)
	if len(latest) != 1 || latest[0].ID != "b" {
		t.Errorf("%+v", latest)
	}
	_, err = s.Change("absent")
	wantKind(t, err, fault.NotFound)
	wantKind(t, s.PutChange(&Change{}), fault.Internal)
}

func TestChangesAreBounded(t *testing.T) {
	s := fresh(t)
	for i := range keptChanges + 3*trimSlack {
		state := ChangeDone
		if i == 0 {
			state = ChangeRunning
		}
		if err := s.PutChange(&Change{ID: fmt.Sprint(i), State: state}); err != nil {
			t.Fatal(err)
		}
		if i == keptChanges/2 {
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	s = again(t, s)
	all, _ := s.Changes(0)
	if len(all) > keptChanges+trimSlack || len(all) < keptChanges {
		t.Errorf("%d changes kept", len(all))
	}
	if _, err := s.Change("0"); err != nil {
		t.Error("the oldest is under way and was let go")
	}
	if _, err := s.Change("1"); err == nil {
		t.Error("the oldest finished one is still there")
	}
}
