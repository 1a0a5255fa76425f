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
	ctx := context.Background()
	s := durable(t, filepath.Join(dir, "state.db"))
	first := apply(t, s, spec.SourceAPI, bigSecret("first"))[0].Object
	if err := s.Claim(ctx, "pool", "value", first.Metadata.UID); err != nil {
		t.Fatal(err)
	}
	ballast := fillDisk(t, dir)

	var err error
	stored := 0
	for i := 0; err == nil && i < 200; i++ {
		if _, err = s.Apply(ctx, spec.SourceAPI, []*spec.Object{bigSecret(fmt.Sprint("more-", i))}, ApplyOptions{}); err == nil {
			stored++
		}
	}
	wantKind(t, err, fault.Exhausted)
	if fault.HintOf(err) == "" {
		t.Error("no hint")
	}
	if secrets, _ := s.List(spec.KindSecret, ""); len(secrets) != stored+1 {
		t.Errorf("%d secrets, %d were stored", len(secrets), stored+1)
	}

	for i := range 20 {
		if err := s.AppendEvent(Event{Message: fmt.Sprint(i)}); err != nil {
			t.Error(err)
		}
	}
	must := []struct {
		what string
		err  error
	}{
		{"remember an exit", s.UpdateRecord(first.Metadata.UID, func(r *Record) { r.LastExit = &spec.ExitStatus{Code: 1} })},
		{"move a GPU", s.Ledger().Transition(ctx, []drivers.Change{{From: drivers.Free, To: drivers.Entry{GPU: "g", State: drivers.Draining}}})},
		{"use the reserve", s.Ledger().Transition(ctx, []drivers.Change{{From: drivers.Draining, To: drivers.Entry{
			GPU: "g", State: drivers.Scrubbing, Reason: strings.Repeat("x", reserveSize/2)}}})},
		{"release claims", s.ReleaseAll(first.Metadata.UID)},
	}
	for _, m := range must {
		if m.err != nil {
			t.Errorf("%s: %v", m.what, m.err)
		}
	}
	if _, err := os.Stat(string(s.reserve)); err == nil {
		t.Error("a megabyte was written without the reserve: the disk is not full")
	}
	if _, err := s.MarkDeleted(first.Ref(), 0); err != nil {
		t.Errorf("mark as deleted: %v", err)
	}
	if err := s.Remove(first.Metadata.UID); err != nil {
		t.Errorf("remove: %v", err)
	}

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	apply(t, s, spec.SourceAPI, bigSecret("after"))
	if err := s.Flush(); err != nil {
		t.Error(err)
	}
	if events, _ := s.Events(0, 0); len(events) != 20 {
		t.Errorf("%d of 20 events outlived the full disk", len(events))
	}
	if _, err := os.Stat(string(s.reserve)); err != nil {
		t.Error("the reserve was not laid up again:", err)
	}
	s = again(t, s)
	if secrets, _ := s.List(spec.KindSecret, ""); len(secrets) != stored+1 {
		t.Errorf("%d secrets in the file, want %d", len(secrets), stored+1)
	}
}

func TestReadOnlyDisk(t *testing.T) {
	dir := smallDisk(t, "24m")
	s := durable(t, filepath.Join(dir, "state.db"))
	o := apply(t, s, spec.SourceAPI, network("acme", "a", "10.0.0.0/16"))[0].Object
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
