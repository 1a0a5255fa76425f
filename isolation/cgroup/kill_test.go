package cgroup

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
)

func TestKillWaitsForTheLast(t *testing.T) {
	tree, paths := newTree(t)
	l := lease("aaaaaaaa")
	leaf := withLeaf(t, tree, paths, l)
	tenant := startOpener(t, leaf)
	if tids, err := tree.Threads(t.Context(), l.UID); err != nil || !slices.Contains(tids, tenant.cmd.Process.Pid) {
		t.Fatalf("Threads = %v, %v", tids, err)
	}
	if err := tree.Remove(t.Context(), l.UID); !fault.Is(err, fault.Busy) || !strings.Contains(err.Error(), fmt.Sprint(tenant.cmd.Process.Pid)) {
		t.Fatalf("Remove with a process in it: %v", err)
	}
	for range 2 {
		if err := tree.Kill(t.Context(), l.UID); err != nil {
			t.Fatal(err)
		}
	}
	s, err := tree.State(t.Context(), l)
	if err != nil || s.Populated {
		t.Fatalf("State after Kill = %+v, %v", s, err)
	}
	_ = tenant.cmd.Wait()
	for range 2 {
		if err := tree.Remove(t.Context(), l.UID); err != nil {
			t.Fatal(err)
		}
	}
	if uids, err := tree.List(t.Context()); err != nil || len(uids) != 0 {
		t.Errorf("List after Remove = %v, %v", uids, err)
	}
}

// What a canary or a killed agent left below the parent goes with it, and is no
// process of the instance.
func TestRemoveTakesTheCanarysCgroup(t *testing.T) {
	tree, paths := newTree(t)
	l := lease("aaaaaaaa")
	tenant := startOpener(t, withLeaf(t, tree, paths, l))
	aside := filepath.Join(paths.CgroupMount, paths.CanaryCgroup(l.UID))
	if err := os.Mkdir(aside, 0o755); err != nil {
		t.Fatal(err)
	}
	canary := startOpener(t, aside)
	tids, err := tree.Threads(t.Context(), l.UID)
	if err != nil || !slices.Contains(tids, tenant.cmd.Process.Pid) || slices.Contains(tids, canary.cmd.Process.Pid) {
		t.Errorf("Threads = %v, %v, want %d and not %d", tids, err, tenant.cmd.Process.Pid, canary.cmd.Process.Pid)
	}
	if err := tree.Kill(t.Context(), l.UID); err != nil {
		t.Fatal(err)
	}
	_, _ = tenant.cmd.Process.Wait()
	if _, err := canary.cmd.Process.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := tree.Remove(t.Context(), l.UID); err != nil {
		t.Error(err)
	}
}

func TestSurvivorsAreNamed(t *testing.T) {
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	s := survivors([]int{os.Getpid()})
	if !strings.Contains(s.Error(), fmt.Sprintf("%d (%s) in state", os.Getpid(), strings.TrimSpace(string(comm)))) {
		t.Errorf("Error() = %q", s.Error())
	}
}

func TestWaitEmptyEndsWithItsContext(t *testing.T) {
	tree, paths := newTree(t)
	l := lease("aaaaaaaa")
	startOpener(t, withLeaf(t, tree, paths, l))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := waitEmpty(ctx, paths.CgroupDir(l.UID)); err == nil {
		t.Error("waitEmpty returned although a process lives")
	}
}

func TestThreadsAreFoundHoweverDeep(t *testing.T) {
	tree, paths := newTree(t)
	l := lease("aaaaaaaa")
	deep := filepath.Join(withLeaf(t, tree, paths, l), "a", "b")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	below := startOpener(t, deep)
	tids, err := tree.Threads(t.Context(), l.UID)
	if err != nil || !slices.Contains(tids, below.cmd.Process.Pid) {
		t.Errorf("Threads = %v, %v, want %d", tids, err, below.cmd.Process.Pid)
	}
	if err := tree.Kill(t.Context(), l.UID); err != nil {
		t.Fatal(err)
	}
	if _, err := below.cmd.Process.Wait(); err != nil {
		t.Fatal(err)
	}
}
