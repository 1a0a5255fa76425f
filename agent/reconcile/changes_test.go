package reconcile

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/agent/store"
)

func TestWhichRunEndsAChange(t *testing.T) {
	begin := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	away := fault.New(fault.Temporary, "read container", "containerd is away")
	for name, row := range map[string]struct {
		late  bool // the change begins during the run
		after time.Duration
		err   error
		want  store.ChangeState
	}{
		"a run of the object as changed":           {want: store.ChangeDone},
		"a run of the object as it was before":     {late: true, want: store.ChangeRunning},
		"an error":                                 {err: fault.New(fault.Invalid, "a", "b"), want: store.ChangeFailed},
		"an error that is expected to pass":        {err: away, want: store.ChangeRunning},
		"an error that has not passed for a while": {err: away, after: time.Minute, want: store.ChangeFailed},
	} {
		t.Run(name, func(t *testing.T) {
			now := begin
			c := newChanges(openStore(t), func() time.Time { return now })
			o := &spec.Object{Kind: spec.KindInstance, Metadata: spec.Metadata{Tenant: "acme", Name: "a", UID: spec.NewUID()}}
			var rec *recorder
			if row.late {
				rec = c.recorder(o)
			}
			id, err := c.begin(o, "delete", "root")
			if err != nil {
				t.Fatal(err)
			}
			if !row.late {
				rec = c.recorder(o)
			}
			now = begin.Add(row.after)
			rec.finish(row.err)
			if ch, _, err := c.get(id); err != nil || ch.State != row.want {
				t.Errorf("the change is %s, %v, want %s", ch.State, err, row.want)
			}
		})
	}
}

// A command line that waited through a crash asks the next agent before its loop
// has begun, and hears in the end what became of its change.
func TestAnInterruptedChangeGoesOnUnderTheNextAgent(t *testing.T) {
	s := openStore(t)
	applied, err := s.Apply(t.Context(), spec.SourceAPI, []*spec.Object{instance("a", 0)}, store.ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	o := applied[0].Object
	id, err := newChanges(s, time.Now).begin(o, "change", "root")
	if err != nil {
		t.Fatal(err)
	}
	next := newChanges(s, time.Now)
	ch, moved, err := next.get(id)
	if err != nil || ch.State != store.ChangeRunning || moved == nil {
		t.Fatalf("early: %s, %v, %v", ch.State, moved, err)
	}
	if err := next.interrupted(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-moved:
	default:
		t.Error("nobody told that there is an agent again")
	}
	next.recorder(o).finish(nil)
	if ch, _, err := next.get(id); err != nil || ch.State != store.ChangeDone {
		t.Errorf("in the end: %s, %v", ch.State, err)
	}
}

func TestWhatNoLaneGoesOnWithEndsWithItsAgent(t *testing.T) {
	s := openStore(t)
	gone := &spec.Object{Kind: spec.KindInstance, Metadata: spec.Metadata{Tenant: "acme", Name: "gone", UID: spec.NewUID()}}
	puller := &spec.Object{Kind: spec.KindTenant, Metadata: spec.Metadata{Name: "acme", UID: spec.NewUID()}}
	old := newChanges(s, time.Now)
	deleted, err := old.begin(gone, "delete", "root")
	if err != nil {
		t.Fatal(err)
	}
	pulled, err := old.begin(puller, verbPull, "root")
	if err != nil {
		t.Fatal(err)
	}
	next := newChanges(s, time.Now)
	if err := next.interrupted(); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]store.ChangeState{deleted: store.ChangeDone, pulled: store.ChangeFailed} {
		if ch, _, err := next.get(id); err != nil || ch.State != want {
			t.Errorf("%s of %s is %s, %v; want %s", ch.Verb, ch.Object, ch.State, err, want)
		}
	}
}

func openStore(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(filepath.Join(t.TempDir(), "state.db"), store.Options{Now: time.Now, BootID: "boot", Key: make([]byte, 32), Volatile: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
