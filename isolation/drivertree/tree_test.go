package drivertree

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/sim"
)

func key() Key { return Key{Tenant: "acme", Version: "580.95.05"} }

func source(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	s, err := sim.Find("dgx-h100")
	if err != nil {
		t.Fatal(err)
	}
	if err := sim.WriteDriverTree(dir, s); err != nil {
		t.Fatal(err)
	}
	return dir
}

// listing is a tree as text: path, type and mode, content or target.
func listing(t testing.TB, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		switch {
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			got[rel] = "-> " + target
			return err
		case d.IsDir():
			got[rel] = "folder"
			return nil
		default:
			text, err := os.ReadFile(p)
			got[rel] = string(text)
			return err
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestEnsureCopiesOnce(t *testing.T) {
	from, s := source(t), New(filepath.Join(t.TempDir(), "driver"))
	first, err := s.Ensure(t.Context(), from, key())
	if err != nil || !first.Made || first.Files == 0 {
		t.Fatalf("Ensure = %+v, %v", first, err)
	}
	if diff := cmp.Diff(listing(t, from), listing(t, first.Path)); diff != "" {
		t.Error(diff)
	}
	again, err := s.Ensure(t.Context(), from, key())
	if err != nil || again.Made || again.Path != first.Path {
		t.Errorf("second Ensure = %+v, %v", again, err)
	}
}

func TestTenantsShareNoInode(t *testing.T) {
	from, s := source(t), New(filepath.Join(t.TempDir(), "driver"))
	inodes := map[uint64]string{}
	for _, tenant := range []string{"acme", "globex"} {
		tree, err := s.Ensure(t.Context(), from, Key{tenant, "580.95.05"})
		if err != nil {
			t.Fatal(err)
		}
		for name, content := range listing(t, tree.Path) {
			if strings.HasPrefix(content, "-> ") || content == "folder" {
				continue
			}
			var st unix.Stat_t
			if err := unix.Lstat(filepath.Join(tree.Path, name), &st); err != nil {
				t.Fatal(err)
			}
			if other, shared := inodes[st.Ino]; shared || st.Nlink != 1 {
				t.Errorf("%s of %s is also %s", name, tenant, other)
			}
			if st.Mode&0o7222 != 0 {
				t.Errorf("%s of %s has mode %o", name, tenant, st.Mode)
			}
			inodes[st.Ino] = tenant + "/" + name
		}
	}
}

func TestHostileSourceIsRefused(t *testing.T) {
	outside := t.TempDir()
	for name, spoil := range map[string]func(dir string) error{
		"absolute link":       func(d string) error { return os.Symlink(outside, filepath.Join(d, "lib64", "out")) },
		"link upwards":        func(d string) error { return os.Symlink("../../x", filepath.Join(d, "lib64", "out")) },
		"link through a link": func(d string) error { return os.Symlink("a/../../../x", filepath.Join(d, "lib64", "out")) },
		"fifo":                func(d string) error { return unix.Mkfifo(filepath.Join(d, "lib64", "fifo"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			from, root := source(t), filepath.Join(t.TempDir(), "driver")
			if err := spoil(from); err != nil {
				t.Fatal(err)
			}
			if _, err := New(root).Ensure(t.Context(), from, key()); !fault.Is(err, fault.Invalid) {
				t.Errorf("Ensure = %v", err)
			}
			left, _ := filepath.Glob(filepath.Join(root, "*", "*"))
			hidden, _ := filepath.Glob(filepath.Join(root, "*", ".*"))
			if len(left)+len(hidden) > 0 {
				t.Errorf("left behind: %v %v", left, hidden)
			}
		})
	}
}

func TestKeyLeadsNowhereElse(t *testing.T) {
	for _, k := range []Key{{"../x", "1"}, {"acme", ".."}, {"", "1"}, {"acme", "a/b"}, {"acme", ".making-1"}} {
		if _, err := New(t.TempDir()).Ensure(t.Context(), t.TempDir(), k); !fault.Is(err, fault.Invalid) {
			t.Errorf("Ensure(%+v) = %v", k, err)
		}
	}
}

// heldContext stops whoever asks it in the middle of a copy.
type heldContext struct {
	context.Context
	asked         int
	reached, goOn chan struct{}
}

func (c *heldContext) Err() error {
	if c.asked++; c.asked == 3 {
		close(c.reached)
		<-c.goOn
	}
	return c.Context.Err()
}

// TestRemovingATenantDisturbsNoOther: each tenant has a lane, and lanes run side by
// side.
func TestRemovingATenantDisturbsNoOther(t *testing.T) {
	from, root := source(t), filepath.Join(t.TempDir(), "driver")
	s := New(root)
	if _, err := s.Ensure(t.Context(), from, key()); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(root, "acme", asidePrefix+"42", "lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	other := Key{"globex", "570.1"}
	held := &heldContext{Context: t.Context(), reached: make(chan struct{}), goOn: make(chan struct{})}
	made := make(chan error, 1)
	go func() {
		_, err := s.Ensure(held, from, other)
		made <- err
	}()
	<-held.reached
	for range 2 {
		if err := s.Remove("acme"); err != nil {
			t.Error(err)
		}
	}
	close(held.goOn)
	if err := <-made; err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(listing(t, from), listing(t, s.Path(other))); diff != "" {
		t.Error(diff)
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) != 1 {
		t.Errorf("left in the store: %v, %v", entries, err)
	}
	if err := s.Remove("../acme"); !fault.Is(err, fault.Invalid) {
		t.Errorf("a path for a name: %v", err)
	}
}

func TestTidyTakesWhatWasInterrupted(t *testing.T) {
	from, root := source(t), filepath.Join(t.TempDir(), "driver")
	s := New(root)
	if err := s.Tidy(); err != nil {
		t.Errorf("nothing is there yet: %v", err)
	}
	tree, err := s.Ensure(t.Context(), from, key())
	if err != nil {
		t.Fatal(err)
	}
	for _, left := range []string{"acme/" + asidePrefix + "42", asidePrefix + "globex/570.1"} {
		if err := os.MkdirAll(filepath.Join(root, left, "lib"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Tidy(); err != nil {
		t.Fatal(err)
	}
	have, err := filepath.Glob(filepath.Join(root, "*", "*"))
	top, _ := os.ReadDir(root)
	if diff := cmp.Diff([]string{tree.Path}, have); err != nil || diff != "" || len(top) != 1 {
		t.Errorf("%v %v %s", err, top, diff)
	}
}

func TestEnsureEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := New(t.TempDir()).Ensure(ctx, source(t), key())
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Ensure = %v", err)
	}
}

// Whatever a link says, when it passes, following it by the kernel's rules from
// any real folder of the tree never climbs above the tree.
func TestLinksStayInside(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.SampledFrom([]string{"..", ".", "a", "lib", "", "x.so.1"})
		name := path.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "lib"}), 1, 4).Draw(t, "name")...)
		target := strings.Join(rapid.SliceOfN(part, 0, 6).Draw(t, "target"), "/")
		if !staysInside(name, target) {
			return
		}
		depth := strings.Count(name, "/")
		for _, step := range strings.Split(target, "/") {
			switch step {
			case "..":
				depth--
			default:
				depth++
			}
			if depth < 0 {
				t.Fatalf("link %q to %q climbs out", name, target)
			}
		}
	})
}

func FuzzStaysInside(f *testing.F) {
	f.Add("lib/libcuda.so", "libcuda.so.1")
	f.Fuzz(func(t *testing.T, name, target string) {
		if staysInside(name, target) && path.IsAbs(target) {
			t.Errorf("%q passes", target)
		}
	})
}
