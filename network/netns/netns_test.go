package netns_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/gpuhost/gpuhost/network/netns"
	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

func TestMain(m *testing.M) { hosttest.Main(m) }

func own(t *testing.T) string {
	t.Helper()
	link, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return link
}

// The process's own namespace is what /proc/self shows: the main thread's. Many
// turns, so that some goroutine surely starts out on the main thread.
func TestTheProcessStaysWhereItIs(t *testing.T) {
	hosttest.Need(t)
	before := own(t)
	path := filepath.Join(t.TempDir(), "pins", "a")
	for range 50 {
		if err := netns.Create(path); err != nil {
			t.Fatal(err)
		}
		f, err := netns.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		inside := ""
		err = netns.Do(f, func() (err error) {
			inside, err = os.Readlink("/proc/thread-self/ns/net")
			return err
		})
		if err != nil || inside == before {
			t.Fatalf("inside: %s, %v; the process has %s", inside, err, before)
		}
		f.Close()
		if err := netns.Delete(path); err != nil {
			t.Fatal(err)
		}
		if after := own(t); after != before {
			t.Fatalf("the process moved from %s to %s", before, after)
		}
	}
}

func TestPins(t *testing.T) {
	hosttest.Need(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "vpc-a")
	if names, err := netns.List(filepath.Join(dir, "absent"), "vpc-"); err != nil || len(names) != 0 {
		t.Errorf("List of an absent folder = %v, %v", names, err)
	}
	if _, err := netns.Open(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of no pin: %v", err)
	}
	for range 2 { // the second time it is there already
		if err := netns.Create(path); err != nil {
			t.Fatal(err)
		}
	}
	if names, err := netns.List(dir, "vpc-"); err != nil || len(names) != 1 || names[0] != "a" {
		t.Errorf("List = %v, %v; want a", names, err)
	}
	for range 2 {
		if err := netns.Delete(path); err != nil {
			t.Fatal(err)
		}
	}
	if names, err := netns.List(dir, "vpc-"); err != nil || len(names) != 0 {
		t.Errorf("List after Delete = %v, %v", names, err)
	}
}

// A crash between making the file and mounting onto it leaves a file that is no pin.
func TestAHalfMadePinIsFinished(t *testing.T) {
	hosttest.Need(t)
	path := filepath.Join(t.TempDir(), "vpc-a")
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		t.Fatal(err)
	}
	if pinned, err := netns.IsPinned(path); pinned || err != nil {
		t.Errorf("IsPinned = %t, %v", pinned, err)
	}
	if err := netns.Create(path); err != nil {
		t.Fatal(err)
	}
	if pinned, err := netns.IsPinned(path); !pinned || err != nil {
		t.Errorf("IsPinned = %t, %v", pinned, err)
	}
	if err := netns.Delete(path); err != nil {
		t.Fatal(err)
	}
}

func TestAScratchNamespaceIsAnother(t *testing.T) {
	hosttest.Need(t)
	before := own(t)
	f, err := netns.Scratch()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	inside := ""
	err = netns.Do(f, func() (err error) {
		inside, err = os.Readlink("/proc/thread-self/ns/net")
		return err
	})
	if err != nil || inside == before {
		t.Errorf("inside: %s, %v; the process has %s", inside, err, before)
	}
	if after := own(t); after != before {
		t.Errorf("the process moved from %s to %s", before, after)
	}
}
