package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gpuhost/gpuhost/isolation/warden/launch"
)

// A warden sits in a cgroup of the agent's own tree: never the tenant's, never
// the one of who started it.
func TestWardenHasItsOwnCgroup(t *testing.T) {
	h := newHost(t)
	root := newCgroup(t)
	h.paths.CgroupMount, h.paths.CgroupRoot = filepath.Dir(root), "/"+filepath.Base(root)
	h.Launcher = launch.New(launch.Config{Paths: h.paths, UID: nobody, GID: nobody, Stderr: os.Stderr})
	// Cleanups run last first: the writer ends before its cgroup goes.
	t.Cleanup(func() {
		if err := os.Remove(filepath.Join(root, "wardens")); err != nil {
			t.Error(err)
		}
	})
	h.makePipes(t, "aaaaaaaa")
	h.startLog(t, "aaaaaaaa")
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", h.holder(t, "aaaaaaaa")))
	if err != nil {
		t.Fatal(err)
	}
	if want := "0::" + h.paths.CgroupRoot + "/wardens\n"; !strings.HasSuffix(string(text), want) {
		t.Errorf("cgroup is %q, want %q", text, want)
	}
}
