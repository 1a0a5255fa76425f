package store

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/drivers"
)

var update = flag.Bool("update", false, "write testdata/schema1.db anew: only before its first release")

const fixture = "testdata/schema1.db"

// writeFixture makes the file that every later version has to open.
func writeFixture(t *testing.T) {
	t.Helper()
	os.Remove(fixture)
	s := open(t, fixture)
	objects := append(spec.DefaultsForTenant("acme"), secret("acme", "s", map[string]string{"k": "v"}))
	applied := apply(t, s, spec.SourceFile, objects...)
	uid := applied[1].Object.Metadata.UID
	for _, err := range []error{
		s.Claim(context.Background(), "transit", "100.127.0.0/31", uid),
		s.UpdateRecord(uid, func(r *Record) { r.Restarts = 2 }),
		s.Ledger().Transition(context.Background(), []drivers.Change{{From: drivers.Free, To: drivers.Entry{GPU: "GPU-1", State: drivers.Reserved}}}),
		s.AppendEvent(Event{Reason: "Made"}),
		s.PutChange(&Change{ID: "one", State: ChangeDone}),
		s.Close(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	os.Remove(fixture + ".reserve")
}

// TestOpensSchema1 reads everything out of a file of the first schema.
func TestOpensSchema1(t *testing.T) {
	if *update {
		writeFixture(t)
	}
	text, err := os.ReadFile(fixture)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "state.db")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, path)
	all, _ := s.All()
	var refs []string
	for _, o := range all {
		refs = append(refs, o.Ref().String())
	}
	want := []string{"tenant acme", "network acme/default", "secret acme/s", "securitygroup acme/default", "subnet acme/default"}
	if diff := cmp.Diff(want, refs); diff != "" {
		t.Error(diff)
	}
	if got := all[2].Spec.(*spec.SecretSpec).Data["k"]; got != "v" {
		t.Errorf("secret %q", got)
	}
	uid := all[1].Metadata.UID
	claims, _ := s.Claims("transit")
	record, _ := s.Record(uid)
	entries, _ := s.Ledger().Entries(context.Background())
	events, _ := s.Events(0, 0)
	_, changeErr := s.Change("one")
	if claims["100.127.0.0/31"] != uid || record.Restarts != 2 || entries["GPU-1"].State != drivers.Reserved || len(events) != 1 || changeErr != nil {
		t.Error(claims, record, entries, events, changeErr)
	}
}

func TestMigrationKeepsACopy(t *testing.T) {
	s := fresh(t)
	apply(t, s, spec.SourceAPI, networkOf("acme", "a", "10.0.0.0/16"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	ran := 0
	steps := []migration{
		{minReader: 1, change: func(tx *bolt.Tx) error { ran++; _, err := tx.CreateBucket([]byte("second")); return err }},
		{minReader: 2, change: func(tx *bolt.Tx) error { ran++; _, err := tx.CreateBucket([]byte("third")); return err }},
	}
	for range 2 { // the second time there is nothing left to do
		s, err := openWith(s.path, testOptions(), steps)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if ran != 2 {
		t.Errorf("%d migrations ran, want each once", ran)
	}

	_, err := Open(s.path, testOptions())
	wantKind(t, err, fault.Unsupported)
	if hint := fault.HintOf(err); !strings.Contains(hint, "cp "+s.path+".schema1 "+s.path) {
		t.Errorf("hint %q does not name the copy", hint)
	}
	old := open(t, s.path+".schema1")
	if all, _ := old.All(); len(all) != 1 {
		t.Errorf("the copy holds %d objects", len(all))
	}

	// The release between reads the file: it knows schema 2, and minReader is 2.
	between, err := openWith(s.path, testOptions(), steps[:1])
	if err != nil {
		t.Fatal(err)
	}
	if v, err := between.version(); err != nil || v != (version{Schema: 3, MinReader: 2}) {
		t.Errorf("reading it made version %+v of it, %v", v, err)
	}
	if err := between.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestFailedMigrationChangesNothing(t *testing.T) {
	s := fresh(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	_, err := openWith(s.path, testOptions(), []migration{{1, func(tx *bolt.Tx) error {
		return errors.Join(tx.DeleteBucket([]byte(bucketObjects)), broken)
	}}})
	if !errors.Is(err, broken) {
		t.Fatal(err)
	}
	open(t, s.path)
}

// TestUnknownFieldsOfNewerVersions: N−1 opens what N wrote.
func TestUnknownFieldsOfNewerVersions(t *testing.T) {
	s := fresh(t)
	o := apply(t, s, spec.SourceAPI, networkOf("acme", "a", "10.0.0.0/16"))[0].Object
	err := s.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(bucketObjects))
		text := bytes.Replace(b.Get([]byte(o.Metadata.UID)), []byte(`"cidr"`), []byte(`"fromTheFuture":{"a":1},"cidr"`), 1)
		return b.Put([]byte(o.Metadata.UID), text)
	})
	if err != nil {
		t.Fatal(err)
	}
	s = again(t, s)
	if got, err := s.Get(o.Ref()); err != nil || got.Spec.(*spec.NetworkSpec).CIDR != "10.0.0.0/16" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestDamagedFileIsNamed(t *testing.T) {
	s := fresh(t)
	apply(t, s, spec.SourceAPI, networkOf("acme", "a", "10.0.0.0/16"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt(bytes.Repeat([]byte{0xff}, 4*4096), 2*4096); err != nil {
		t.Fatal(err)
	}
	file.Close()
	_, err = Open(s.path, testOptions())
	if err == nil || !strings.Contains(err.Error(), "damaged") || fault.HintOf(err) == "" {
		t.Errorf("%v, hint %q", err, fault.HintOf(err))
	}
}

func TestBackupOpens(t *testing.T) {
	s := fresh(t)
	o := apply(t, s, spec.SourceAPI, secret("acme", "s", map[string]string{"k": "v"}))[0].Object
	path := filepath.Join(t.TempDir(), "backup.db")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Backup(file), file.Close()); err != nil {
		t.Fatal(err)
	}
	if got, err := open(t, path).Get(o.Ref()); err != nil || got.Spec.(*spec.SecretSpec).Data["k"] != "v" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	first, err := LoadOrCreateKey(path)
	if err != nil || len(first) != keySize {
		t.Fatal(first, err)
	}
	second, err := LoadOrCreateKey(path)
	if err != nil || !bytes.Equal(first, second) {
		t.Error("another key the second time", err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = LoadOrCreateKey(path)
	wantKind(t, err, fault.Invalid)
	if err := os.WriteFile(path, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = LoadOrCreateKey(path)
	wantKind(t, err, fault.Invalid)
}

// TestTheNoteSaysWhoMayRead: scripts of packages read it while the file is open.
func TestTheNoteSaysWhoMayRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	options := Options{Now: time.Now, BootID: "boot", Key: make([]byte, 32)}
	read := func() string {
		text, err := os.ReadFile(path + ".version")
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	s, err := Open(path, options)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(); got != "schema=1\nminReader=1\n" {
		t.Errorf("a new file's note is %q", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err = openWith(path, options, []migration{{minReader: 2, change: func(*bolt.Tx) error { return nil }}})
	if err != nil {
		t.Fatal(err)
	}
	if got := read(); got != "schema=2\nminReader=2\n" {
		t.Errorf("after a migration the note is %q", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
