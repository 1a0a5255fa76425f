package node

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

func TestMain(m *testing.M) { hosttest.Main(m) }

func open(t testing.TB) (*Store, isolation.Paths) {
	t.Helper()
	hosttest.Need(t)
	paths := isolation.Paths{Nodes: filepath.Join(t.TempDir(), "nodes")}
	s, err := Open(paths, func() uint32 { return 510 })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Destroy(); err != nil {
			t.Error(err)
		}
	})
	return s, paths
}

func lease(minors ...uint32) isolation.Lease {
	l := isolation.Lease{UID: "aaaaaaaa", IDs: isolation.IDRange{Start: 1_879_048_192, Size: 65_536}}
	for _, m := range minors {
		l.GPUs = append(l.GPUs, isolation.Device{Minor: m})
	}
	return l
}

func state(t testing.TB, s *Store, l isolation.Lease) isolation.NodesState {
	t.Helper()
	got, err := s.State(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestMakeMakesTheGrant(t *testing.T) {
	s, paths := open(t)
	l := lease(0, 3)
	for range 2 {
		if err := s.Make(t.Context(), l); err != nil {
			t.Fatal(err)
		}
	}
	want := isolation.NodesState{Complete: true, Nodes: []isolation.Node{
		{Name: "nvidia-uvm", Major: 510}, {Name: "nvidia0", Major: 195}, {Name: "nvidia3", Major: 195, Minor: 3},
		{Name: "nvidiactl", Major: 195, Minor: 255},
	}}
	if diff := cmp.Diff(want, state(t, s, l)); diff != "" {
		t.Error(diff)
	}
	st, err := lstat(filepath.Join(paths.NodeDir(l.UID), "nvidia3"))
	if err != nil || st.Mode != unix.S_IFCHR|0o600 || st.Uid != l.IDs.Start || st.Gid != l.IDs.Start {
		t.Errorf("nvidia3 = mode %o of %d:%d, %v", st.Mode, st.Uid, st.Gid, err)
	}
	for range 2 {
		if err := s.Remove(t.Context(), l.UID); err != nil {
			t.Fatal(err)
		}
	}
	if got := state(t, s, l); got.Complete || len(got.Nodes) > 0 {
		t.Errorf("after Remove: %+v", got)
	}
	if got := state(t, s, lease()); !got.Complete {
		t.Errorf("nothing granted, nothing there: %+v", got)
	}
}

func TestMakeMendsWhatIsWrong(t *testing.T) {
	for name, spoil := range map[string]func(dir string) error{
		"mode":         func(dir string) error { return os.Chmod(filepath.Join(dir, "nvidia0"), 0o666) },
		"owner":        func(dir string) error { return os.Chown(filepath.Join(dir, "nvidia0"), 0, 0) },
		"missing":      func(dir string) error { return os.Remove(filepath.Join(dir, "nvidiactl")) },
		"another file": func(dir string) error { return os.WriteFile(filepath.Join(dir, "nvidia7"), nil, 0o600) },
		"folder": func(dir string) error {
			_ = os.Remove(filepath.Join(dir, "nvidia0"))
			return os.MkdirAll(filepath.Join(dir, "nvidia0", "x"), 0o700)
		},
		"link": func(dir string) error {
			_ = os.Remove(filepath.Join(dir, "nvidia0"))
			return os.Symlink("/dev/null", filepath.Join(dir, "nvidia0"))
		},
		"number": func(dir string) error {
			_ = os.Remove(filepath.Join(dir, "nvidia0"))
			return unix.Mknod(filepath.Join(dir, "nvidia0"), nodeMode, int(unix.Mkdev(195, 5)))
		},
		"left from a crash": func(dir string) error { return os.WriteFile(filepath.Join(dir, "nvidia0.new"), nil, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			s, paths := open(t)
			l := lease(0)
			if err := s.Make(t.Context(), l); err != nil {
				t.Fatal(err)
			}
			if err := spoil(paths.NodeDir(l.UID)); err != nil {
				t.Fatal(err)
			}
			if got := state(t, s, l); got.Complete {
				t.Fatalf("State calls it complete: %+v", got)
			}
			if err := s.Make(t.Context(), l); err != nil {
				t.Fatal(err)
			}
			if got := state(t, s, l); !got.Complete {
				t.Errorf("still wrong after Make: %+v", got)
			}
		})
	}
}

// Whatever grants follow one another, the last one is what lies there.
func TestMakeConverges(t *testing.T) {
	s, _ := open(t)
	rapid.Check(t, func(t *rapid.T) {
		for range rapid.IntRange(1, 4).Draw(t, "changes") {
			l := lease(rapid.SliceOfNDistinct(rapid.Uint32Range(0, 8), 0, 4, rapid.ID).Draw(t, "minors")...)
			l.IDs.Start += 65_536 * rapid.Uint32Range(0, 2).Draw(t, "range")
			if err := s.Make(t.Context(), l); err != nil {
				t.Fatal(err)
			}
			if got, err := s.State(t.Context(), l); err != nil || !got.Complete {
				t.Fatalf("State of %+v = %+v, %v", l.GPUs, got, err)
			}
		}
	})
}

// TestAnotherMajorMakesAnotherNode: nvidia-uvm was loaded, or loaded again, after the
// agent started.
func TestAnotherMajorMakesAnotherNode(t *testing.T) {
	s, _ := open(t)
	major := uint32(0)
	s.uvmMajor = func() uint32 { return major }
	l := lease(0)
	for _, major = range []uint32{0, 510, 507} {
		if major != 0 && state(t, s, l).Complete {
			t.Errorf("complete without major %d", major)
		}
		if err := s.Make(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		if got := state(t, s, l); !got.Complete || len(got.Nodes) != len(isolation.Grant(l, major)) {
			t.Errorf("major %d: %+v", major, got)
		}
	}
}

func TestOpenAdoptsTheMountOfAnEarlierAgent(t *testing.T) {
	s, paths := open(t)
	l := lease(0)
	if err := s.Make(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	later, err := Open(paths, func() uint32 { return 510 })
	if err != nil {
		t.Fatal(err)
	}
	if got := state(t, later, l); !got.Complete {
		t.Errorf("nodes after a restart: %+v", got)
	}
	if diff := cmp.Diff([]spec.UID{l.UID}, must(later.List(t.Context()))(t)); diff != "" {
		t.Error(diff)
	}
}

func must[T any](value T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

// A read-only bind of a node can be opened for writing, and nobody behind it can
// change its mode: what a container's mount of it should be.
func TestNodeBehindReadOnlyBind(t *testing.T) {
	s, paths := open(t)
	l := lease(0)
	if err := s.Make(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(t.TempDir(), "nvidia0")
	if err := os.WriteFile(target, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(filepath.Join(paths.NodeDir(l.UID), "nvidia0"), target, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
	if err := unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NOEXEC, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(target, 0o666); err != unix.EROFS {
		t.Errorf("chmod = %v, want EROFS", err)
	}
	if _, err := unix.Open(target, unix.O_RDWR, 0); err != unix.ENXIO {
		t.Errorf("open = %v, want ENXIO: no driver, but let through", err)
	}
}

func TestWhatIsNoUIDIsRefused(t *testing.T) {
	s, paths := open(t)
	if err := s.Make(t.Context(), lease(0)); err != nil {
		t.Fatal(err)
	}
	for _, uid := range []spec.UID{"", ".", "..", "aaaaaaaa/..", "../aaaaaaaa"} {
		if err := s.Remove(t.Context(), uid); err == nil {
			t.Errorf("Remove of %q passed", uid)
		}
		if err := s.Make(t.Context(), isolation.Lease{UID: uid}); err == nil {
			t.Errorf("Make of %q passed", uid)
		}
	}
	if got := state(t, s, lease(0)); !got.Complete {
		t.Errorf("afterwards %s holds %+v", paths.Nodes, got)
	}
}
