package store

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

// The tests on small disks mount them: in namespaces of their own.
func TestMain(m *testing.M) { hosttest.Main(m) }

// smallDisk mounts a tmpfs for the time of the test.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	hosttest.Need(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// fillDisk writes until nothing fits any more.
func fillDisk(t *testing.T, dir string) (ballast string) {
	t.Helper()
	ballast = filepath.Join(dir, "ballast")
	file, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	zero := strings.NewReader(strings.Repeat("x", 1<<20))
	for err == nil {
		zero.Seek(0, io.SeekStart)
		_, err = io.Copy(file, zero)
	}
	return ballast
}

func bigSecret(name string) *spec.Object {
	return secret("acme", name, map[string]string{"k": strings.Repeat("x", 512<<10)})
}

// TestDiskFull: what is new is refused and changes nothing; what gives back and
// what must be remembered works; with space everything works again.
func TestDiskFull(t *testing.T) {
	dir := smallDisk(t, "24m")
	s := durable(t, filepath.Join(dir, "state.db"))
	first := apply(t, s, spec.SourceAPI, bigSecret("first"))[0].Object
	if err := s.Claim(context.Background(), "pool", "value", first.Metadata.UID); err != nil {
		t.Fatal(err)
	}
	ballast := fillDisk(t, dir)
	stored := fillStore(t, s)
	const events = 20
	appendEvents(t, s, events)
	giveBack(t, s, first)

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	apply(t, s, spec.SourceAPI, bigSecret("after"))
	if err := s.Flush(); err != nil {
		t.Error(err)
	}
	if got, _ := s.Events(0, 0); len(got) != events {
		t.Errorf("%d of %d events outlived the full disk", len(got), events)
	}
	if _, err := os.Stat(string(s.reserve)); err != nil {
		t.Error("the reserve was not laid up again:", err)
	}
	wantSecrets(t, again(t, s), stored+1)
}

// fillStore writes until the store refuses, and gives how many it took.
func fillStore(t *testing.T, s *Store) (stored int) {
	t.Helper()
	var err error
	for err == nil && stored < 200 {
		_, err = s.Apply(context.Background(), spec.SourceAPI, []*spec.Object{bigSecret(fmt.Sprint("more-", stored))}, ApplyOptions{})
		if err == nil {
			stored++
		}
	}
	wantKind(t, err, fault.Exhausted)
	if fault.HintOf(err) == "" {
		t.Error("no hint")
	}
	wantSecrets(t, s, stored+1)
	return stored
}

func wantSecrets(t *testing.T, s *Store, want int) {
	t.Helper()
	if got, _ := s.List(spec.KindSecret, ""); len(got) != want {
		t.Errorf("%d secrets, want %d", len(got), want)
	}
}

// giveBack does everything that must work on a full disk, to o in the end.
func giveBack(t *testing.T, s *Store, o *spec.Object) {
	t.Helper()
	move := func(from, to drivers.State, reason string) error {
		entry := drivers.Entry{GPU: "g", State: to, Reason: reason}
		return s.Ledger().Transition(context.Background(), []drivers.Change{{From: from, To: entry}})
	}
	uid := o.Metadata.UID
	steps := []struct {
		what string
		do   func() error
	}{
		{"remember an exit", func() error {
			return s.UpdateRecord(uid, func(r *Record) { r.LastExit = &spec.ExitStatus{Code: 1} })
		}},
		{"move a GPU", func() error { return move(drivers.Free, drivers.Draining, "") }},
		{"use the reserve", func() error {
			return move(drivers.Draining, drivers.Scrubbing, strings.Repeat("x", reserveSize/2))
		}},
		{"release claims", func() error { return s.ReleaseAll(uid) }},
		{"mark as deleted", func() error { _, err := s.MarkDeleted(o.Ref(), 0); return err }},
		{"remove", func() error { return s.Remove(uid) }},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			t.Errorf("%s: %v", step.what, err)
		}
	}
	if _, err := os.Stat(string(s.reserve)); err == nil {
		t.Error("a megabyte was written without the reserve: the disk is not full")
	}
}

func TestReadOnlyDisk(t *testing.T) {
	dir := smallDisk(t, "24m")
	s := durable(t, filepath.Join(dir, "state.db"))
	o := apply(t, s, spec.SourceAPI, networkOf("acme", "a", "10.0.0.0/16"))[0].Object
	if err := s.db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	_, err := Open(s.path, testOptions())
	wantKind(t, err, fault.Temporary)
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, s.path).Get(o.Ref()); err != nil {
		t.Error(err)
	}
}
