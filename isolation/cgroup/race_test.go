package cgroup

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/isolation"
)

// Between the look at what is attached and the replacement somebody detaches it.
// ENOENT means then that there is no program, not that there is no cgroup: a fence
// that took the one for the other left every device open.
func TestFenceWhoseProgramIsDetachedMeanwhile(t *testing.T) {
	for _, row := range []struct {
		name  string
		times int
		want  isolation.Program
		fault fault.Kind
	}{
		{"once", 1, isolation.ProgramDeny, ""},
		{"every time", replaceTries, isolation.ProgramNone, fault.Busy},
	} {
		t.Run(row.name, func(t *testing.T) {
			tree, paths := newTree(t)
			l := lease("aaaaaaaa", 0)
			withLeaf(t, tree, paths, l)
			dir, err := os.Open(paths.CgroupDir(l.UID))
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			looks := 0
			err = replaceFound(dir, nil, func() ([]Attached, error) {
				if err := replace(dir, tree.rules(l)); err != nil {
					return nil, err
				}
				found, err := attached(dir, 0)
				if looks++; err == nil && looks <= row.times {
					err = detach(dir, found[0].ID)
				}
				return found, err
			})
			if fault.KindOf(err) != row.fault || looks > replaceTries {
				t.Errorf("after %d looks: %v", looks, err)
			}
			state, err := tree.State(t.Context(), l)
			if err != nil || state.Program != row.want {
				t.Errorf("program %q, %v, want %q", state.Program, err, row.want)
			}
		})
	}
}

// plainCgroup is a folder with the files of a cgroup, whose kernel does nothing.
func plainCgroup(t *testing.T, files map[string]string) (*Tree, isolation.Lease) {
	t.Helper()
	paths := isolation.Paths{CgroupMount: t.TempDir(), CgroupRoot: "/gpuhost-x"}
	l := lease("aaaaaaaa")
	for name, text := range files {
		file := filepath.Join(paths.CgroupDir(l.UID), name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &Tree{paths: paths}, l
}

// A thread that hangs in a driver on its way out is in no list of processes, yet
// the kernel calls its cgroup populated. Nothing must be handed on from there.
func TestKillBelievesPopulated(t *testing.T) {
	tid := fmt.Sprint(unix.Gettid())
	for _, row := range []struct {
		name  string
		files map[string]string
		want  []string // in the error's text; none is success
	}{
		{"a thread hangs", map[string]string{
			"cgroup.events": "populated 1\n", "cgroup.procs": "", "cgroup.threads": "",
			"task/cgroup.procs": "", "task/cgroup.threads": tid + "\n",
		}, []string{tid + " (", "in state"}},
		{"nobody is named", map[string]string{"cgroup.events": "populated 1\n", "cgroup.threads": ""}, []string{"does not name"}},
		{"it cannot be read", map[string]string{"cgroup.events": "frozen 0\n"}, []string{"populated"}},
		{"it emptied", map[string]string{"cgroup.events": "populated 0\n"}, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			tree, l := plainCgroup(t, row.files)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			err := tree.Kill(ctx, l.UID)
			if (err == nil) != (row.want == nil) {
				t.Errorf("Kill: %v", err)
			}
			for _, part := range row.want {
				if err != nil && !strings.Contains(err.Error(), part) {
					t.Errorf("Kill: %v, want %q in it", err, part)
				}
			}
		})
	}
}

func TestSurvivorsFitOnALine(t *testing.T) {
	e := &SurvivorsError{}
	for tid := range 3 * mostNamed {
		e.Survivors = append(e.Survivors, Survivor{TID: tid, Command: "python", State: "D"})
	}
	if diff := cmp.Diff(16, strings.Count(e.Error(), "python")+strings.Count(e.Error(), "state")); diff != "" {
		t.Errorf("%s: %s", e, diff)
	}
}
