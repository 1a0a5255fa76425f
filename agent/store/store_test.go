package store

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

func testKey() []byte { return bytes.Repeat([]byte{7}, keySize) }

// testNow is a clock that stands.
func testNow() time.Time { return time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC) }

// testOptions skip fsync: the crashes of these tests are of the process, not of
// the machine.
func testOptions() Options {
	return Options{Now: testNow, BootID: "boot-1", Key: testKey(), Volatile: true}
}

func open(t testing.TB, path string) *Store {
	t.Helper()
	return openAs(t, path, testOptions())
}

// durable opens as the agent does.
func durable(t testing.TB, path string) *Store {
	t.Helper()
	o := testOptions()
	o.Volatile = false
	return openAs(t, path, o)
}

func openAs(t testing.TB, path string, o Options) *Store {
	t.Helper()
	s, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.db.Close() })
	return s
}

func fresh(t testing.TB) *Store {
	t.Helper()
	return open(t, filepath.Join(t.TempDir(), "state.db"))
}

// again closes s and opens its file as the next agent would after a crash:
// nothing is flushed.
func again(t testing.TB, s *Store) *Store {
	t.Helper()
	if err := s.db.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, s.path)
}

func networkOf(tenant, name, cidr string) *spec.Object {
	return &spec.Object{
		Kind: spec.KindNetwork, Metadata: spec.Metadata{Tenant: tenant, Name: name}, Spec: &spec.NetworkSpec{CIDR: cidr},
	}
}

func secret(tenant, name string, data map[string]string) *spec.Object {
	return &spec.Object{
		Kind: spec.KindSecret, Metadata: spec.Metadata{Tenant: tenant, Name: name}, Spec: &spec.SecretSpec{Data: data},
	}
}

func apply(t testing.TB, s *Store, source spec.Source, objects ...*spec.Object) []Applied {
	t.Helper()
	applied, err := s.Apply(context.Background(), source, objects, ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return applied
}

func wantKind(t rapid.TB, err error, kind fault.Kind) {
	t.Helper()
	if !fault.Is(err, kind) {
		t.Errorf("error %v is %q, want %q", err, fault.KindOf(err), kind)
	}
}

func TestApplyLifeCycle(t *testing.T) {
	s := fresh(t)
	first := apply(t, s, spec.SourceAPI, networkOf("acme", "a", "10.0.0.0/16"))[0]
	if first.Change != Created || first.Object.Metadata.Generation != 1 || !first.Object.Metadata.UID.Valid() {
		t.Fatalf("created %+v", first.Object.Metadata)
	}
	same := apply(t, s, spec.SourceAPI, networkOf("acme", "a", "10.0.0.0/16"))[0]
	if same.Change != Unchanged || same.Object.Metadata.Generation != 1 {
		t.Errorf("the same again: %s, generation %d", same.Change, same.Object.Metadata.Generation)
	}
	changed := apply(t, s, spec.SourceAPI, networkOf("acme", "a", "10.1.0.0/16"))[0]
	if changed.Change != Changed || changed.Object.Metadata.Generation != 2 || changed.Object.Metadata.UID != first.Object.Metadata.UID {
		t.Errorf("changed: %s %+v", changed.Change, changed.Object.Metadata)
	}
	s = again(t, s)
	got, err := s.Get(changed.Object.Ref())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(changed.Object, got); diff != "" {
		t.Error(diff)
	}
}

func TestApplyIfMatch(t *testing.T) {
	s := fresh(t)
	ctx := context.Background()
	read := apply(t, s, spec.SourceAPI, networkOf("acme", "a", "10.0.0.0/16"))[0].Object.Clone()
	apply(t, s, spec.SourceAPI, networkOf("acme", "a", "10.1.0.0/16"))
	_, err := s.Apply(ctx, spec.SourceAPI, []*spec.Object{read}, ApplyOptions{})
	wantKind(t, err, fault.Conflict)

	other := networkOf("acme", "a", "10.2.0.0/16")
	other.Metadata.UID = "aaaaaaaa"
	_, err = s.Apply(ctx, spec.SourceAPI, []*spec.Object{other}, ApplyOptions{})
	wantKind(t, err, fault.Conflict)

	gone := networkOf("acme", "gone", "10.2.0.0/16")
	gone.Metadata.Generation = 3
	_, err = s.Apply(ctx, spec.SourceAPI, []*spec.Object{gone}, ApplyOptions{})
	wantKind(t, err, fault.Conflict)
}

func TestApplySources(t *testing.T) {
	s := fresh(t)
	def := apply(t, s, spec.SourceDefault, networkOf("acme", "default", "10.0.0.0/16"))[0]
	taken := apply(t, s, spec.SourceFile, networkOf("acme", "default", "10.0.0.0/16"))[0]
	if taken.Change != Changed || taken.Object.Metadata.Source != spec.SourceFile || taken.Object.Metadata.Generation != 1 {
		t.Errorf("taking over a default: %s %+v", taken.Change, taken.Object.Metadata)
	}
	if taken.Object.Metadata.UID != def.Object.Metadata.UID {
		t.Error("taking over a default made another object")
	}
	_, err := s.Apply(context.Background(), spec.SourceAPI, []*spec.Object{networkOf("acme", "default", "10.9.0.0/16")}, ApplyOptions{})
	wantKind(t, err, fault.Conflict)
	kept := apply(t, s, spec.SourceDefault, networkOf("acme", "default", "10.9.0.0/16"))[0]
	if kept.Change != Unchanged || kept.Object.Spec.(*spec.NetworkSpec).CIDR != "10.0.0.0/16" {
		t.Error("a default replaced what a file says")
	}
}

func TestApplyIsAllOrNothing(t *testing.T) {
	s := fresh(t)
	ctx := context.Background()
	refused := errors.New("refused")
	cases := map[string]struct {
		objects []*spec.Object
		how     ApplyOptions
	}{
		"one is invalid": {objects: []*spec.Object{networkOf("acme", "a", "10.0.0.0/16"), networkOf("acme", "b", "nonsense")}},
		"one twice":      {objects: []*spec.Object{networkOf("acme", "a", "10.0.0.0/16"), networkOf("acme", "a", "10.1.0.0/16")}},
		"check refuses": {
			objects: []*spec.Object{networkOf("acme", "a", "10.0.0.0/16")},
			how:     ApplyOptions{Check: func([]*spec.Object) error { return refused }},
		},
		"dry run": {objects: []*spec.Object{networkOf("acme", "a", "10.0.0.0/16")}, how: ApplyOptions{DryRun: true}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := s.Apply(ctx, spec.SourceAPI, c.objects, c.how)
			if (err == nil) != c.how.DryRun {
				t.Errorf("error %v", err)
			}
			if all, _ := s.All(); len(all) != 0 {
				t.Errorf("stored %d objects", len(all))
			}
		})
	}
}

func TestApplyKeepsItsOwnCopy(t *testing.T) {
	s := fresh(t)
	mine := secret("acme", "s", map[string]string{"k": "v"})
	apply(t, s, spec.SourceAPI, mine)
	mine.Spec.(*spec.SecretSpec).Data["k"] = "changed by the caller"
	got, err := s.Get(mine.Ref())
	if err != nil || got.Spec.(*spec.SecretSpec).Data["k"] != "v" {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestSecretsAreSealedAndSurviveRedaction(t *testing.T) {
	s := fresh(t)
	const value = "s3cret-value-to-look-for"
	o := apply(t, s, spec.SourceAPI, secret("acme", "s", map[string]string{"password": value, "user": "u"}))[0].Object
	shown := spec.Redact(o)
	shown = shown.Clone()
	shown.Spec.(*spec.SecretSpec).Data["user"] = "other"
	apply(t, s, spec.SourceAPI, shown)

	_, err := s.Apply(context.Background(), spec.SourceAPI, []*spec.Object{secret("acme", "t", map[string]string{"k": spec.Redacted})}, ApplyOptions{})
	wantKind(t, err, fault.Invalid)

	s = again(t, s)
	got, err := s.Get(o.Ref())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"password": value, "user": "other"}
	if diff := cmp.Diff(want, got.Spec.(*spec.SecretSpec).Data); diff != "" {
		t.Error(diff)
	}
	raw, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, []byte(value)) {
		t.Error("the value lies readable in the state file")
	}
}

func TestOpenRefusals(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)

	_, err := Open(path, testOptions())
	wantKind(t, err, fault.Conflict)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	wrong := testOptions()
	wrong.Key = bytes.Repeat([]byte{8}, keySize)
	_, err = Open(path, wrong)
	wantKind(t, err, fault.Invalid)
	if !strings.Contains(err.Error(), "another key") {
		t.Error(err)
	}

	short := testOptions()
	short.Key = nil
	_, err = Open(path, short)
	wantKind(t, err, fault.Invalid)

	bad := filepath.Join(t.TempDir(), "bad.db")
	if err := os.WriteFile(bad, bytes.Repeat([]byte("no state file "), 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Open(bad, testOptions())
	if err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a file that is none: %v", err)
	}
}

func TestConcurrentWritersWithIfMatch(t *testing.T) {
	s := fresh(t)
	o := apply(t, s, spec.SourceAPI, networkOf("acme", "a", "10.0.0.0/16"))[0].Object
	const writers = 8
	var group sync.WaitGroup
	won := make([]bool, writers)
	for i := range writers {
		group.Go(func() {
			mine := o.Clone()
			mine.Spec.(*spec.NetworkSpec).CIDR = "10." + string(rune('1'+i)) + ".0.0/16"
			_, err := s.Apply(context.Background(), spec.SourceAPI, []*spec.Object{mine}, ApplyOptions{})
			won[i] = err == nil
			if err != nil && !fault.Is(err, fault.Conflict) {
				t.Error(err)
			}
		})
	}
	group.Wait()
	count := 0
	for _, w := range won {
		if w {
			count++
		}
	}
	if count != 1 {
		t.Errorf("%d of %d writers of one generation won", count, writers)
	}
}

func TestDeletion(t *testing.T) {
	s := fresh(t)
	o := apply(t, s, spec.SourceAPI, networkOf("acme", "a", "10.0.0.0/16"))[0].Object
	_, err := s.MarkDeleted(o.Ref(), 9)
	wantKind(t, err, fault.Conflict)
	marked, err := s.MarkDeleted(o.Ref(), 1)
	if err != nil || marked.Metadata.DeletedAt == nil || marked.Metadata.Generation != 2 {
		t.Fatalf("%+v, %v", marked, err)
	}
	twice, err := s.MarkDeleted(o.Ref(), 0)
	if err != nil || twice.Metadata.Generation != 2 {
		t.Errorf("marking twice: %+v, %v", twice, err)
	}
	_, err = s.Apply(context.Background(), spec.SourceAPI, []*spec.Object{networkOf("acme", "a", "10.0.0.0/16")}, ApplyOptions{})
	wantKind(t, err, fault.Busy)
	s = again(t, s)
	for range 2 {
		if err := s.Remove(o.Metadata.UID); err != nil {
			t.Fatal(err)
		}
	}
	_, err = s.Get(o.Ref())
	wantKind(t, err, fault.NotFound)
	if next := apply(t, s, spec.SourceAPI, networkOf("acme", "a", "10.0.0.0/16"))[0]; next.Object.Metadata.UID == o.Metadata.UID {
		t.Error("a new object got the uid of the old")
	}
}

func TestNotFoundNamesTheNearest(t *testing.T) {
	s := fresh(t)
	apply(t, s, spec.SourceAPI, networkOf("acme", "frontend", "10.0.0.0/16"))
	_, err := s.Get(spec.Ref{Kind: spec.KindNetwork, Tenant: "acme", Name: "fronted"})
	wantKind(t, err, fault.NotFound)
	if hint := fault.HintOf(err); hint != `the nearest is "frontend"; gpuhost get networks` {
		t.Error(hint)
	}
}

func TestStatusLivesInMemory(t *testing.T) {
	s := fresh(t)
	o := apply(t, s, spec.SourceAPI, networkOf("acme", "a", "10.0.0.0/16"))[0].Object
	status := spec.Status{Phase: spec.PhaseRunning, ObservedGeneration: 1}
	if err := s.SetStatus(o.Metadata.UID, status); err != nil {
		t.Fatal(err)
	}
	changed := apply(t, s, spec.SourceAPI, networkOf("acme", "a", "10.1.0.0/16"))[0].Object
	if changed.Status == nil || changed.Status.Phase != spec.PhaseRunning {
		t.Error("a write lost the status")
	}
	if o.Status != nil {
		t.Error("an object handed out before was changed")
	}
	s = again(t, s)
	if got, _ := s.Get(o.Ref()); got.Status != nil {
		t.Error("a status came out of the file")
	}
}
