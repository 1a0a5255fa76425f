package netns_test

import (
	"path/filepath"
	"testing"

	"github.com/gpuhost/gpuhost/network/netns"
	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

// Many turns, because Go's poller would take the news only now and then.
func TestAPinThatComesOrGoesIsTold(t *testing.T) {
	hosttest.Need(t)
	pin := filepath.Join(t.TempDir(), "pin")
	mounts, err := netns.WatchMounts()
	if err != nil {
		t.Fatal(err)
	}
	defer mounts.Close()
	last := uint64(0)
	version := func() uint64 {
		t.Helper()
		v, err := mounts.Version()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for range 50 {
		for _, change := range []func(string) error{netns.Create, netns.Delete} {
			if err := change(pin); err != nil {
				t.Fatal(err)
			}
			now := version()
			if now == last {
				t.Fatal("nothing was told")
			}
			last = now
		}
	}
}
