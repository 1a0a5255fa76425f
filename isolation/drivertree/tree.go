// Package drivertree gives each tenant its own copy of the driver's libraries and
// tools.
//
//	store := drivertree.New(filepath.Join(state, "driver"))
//	tree, err := store.Ensure(ctx, source, drivertree.Key{Tenant: "acme", Version: "580.95.05"})
//	// tree.Path is mounted read-only at /usr/local/nvidia
//	err = store.Remove("acme") // with the tenant
//
// Why copies: whoever maps a file shares its page cache, and a defect that lets
// one write there (CVE-2026-31431) would change the library of every other tenant
// and of the host. Where the file system can, a copy shares blocks and costs no
// space (reflink); the page cache is its own all the same, because that hangs on
// the inode.
//
// A source is judged as hostile: only regular files, folders and links that stay
// inside the tree are taken; modes lose setuid and every write bit.
package drivertree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// Key names one copy.
type Key struct {
	Tenant  string
	Version string // of the driver
}

// Tree is a copy that is complete.
type Tree struct {
	Path string
	// Made says that it was copied just now; the counts are of that.
	Made      bool
	Files     int
	Bytes     int64
	Reflinked int // files that share their blocks with the source
}

// Store is the folder of all copies: <root>/<tenant>/<version>.
type Store struct {
	root string
}

// New takes the folder; it is made when the first copy is.
func New(root string) *Store { return &Store{root: root} }

// asidePrefix marks a copy that is not complete.
const asidePrefix = ".making-"

// Path is where the copy of k lies or would lie.
func (s *Store) Path(k Key) string { return filepath.Join(s.root, k.Tenant, k.Version) }

// Ensure makes the copy where it is missing. It is built aside, brought to disk
// and renamed: a copy that is there is whole, whatever was interrupted.
func (s *Store) Ensure(ctx context.Context, source string, k Key) (Tree, error) {
	what := fmt.Sprintf("copy driver %s for tenant %s", k.Version, k.Tenant)
	if err := k.check(); err != nil {
		return Tree{}, fault.Wrap(fault.Invalid, what, err)
	}
	if _, err := os.Lstat(s.Path(k)); err == nil {
		return Tree{Path: s.Path(k)}, nil
	}
	tree, err := s.make(ctx, source, k)
	if errors.Is(err, unix.ENOSPC) {
		return Tree{}, fault.Wrap(fault.Exhausted, what, err)
	}
	return tree, fault.Wrap(fault.Internal, what, err)
}

// check keeps names from leading anywhere else.
func (k Key) check() error {
	return errors.Join(plainName(k.Tenant), plainName(k.Version))
}

func plainName(name string) error {
	plain := regexp.MustCompile(`^[a-z0-9][a-zA-Z0-9._-]{0,63}$`)
	if !plain.MatchString(name) || strings.Contains(name, "..") {
		return fault.New(fault.Invalid, "name driver copy", "%q is no plain name", name)
	}
	return nil
}

func (s *Store) make(ctx context.Context, source string, k Key) (Tree, error) {
	parent := filepath.Join(s.root, k.Tenant)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return Tree{}, err
	}
	aside, err := os.MkdirTemp(parent, asidePrefix)
	if err != nil {
		return Tree{}, err
	}
	defer func() { _ = os.RemoveAll(aside) }()
	c := &copier{}
	if err := c.copyTree(ctx, source, aside); err != nil {
		return Tree{}, err
	}
	if err := settle(aside); err != nil {
		return Tree{}, err
	}
	err = os.Rename(aside, s.Path(k))
	if err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return Tree{}, err
	}
	// One that another call finished meanwhile is as good.
	c.tree.Path, c.tree.Made = s.Path(k), err == nil
	return c.tree, nil
}

// settle brings the copy to disk before its name says that it is whole.
func settle(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync driver copy: %w", err)
	}
	return nil
}

// Remove takes all of a tenant's copies away, the half-made ones of an interrupted
// Ensure too, and touches no other tenant's. No container of the tenant may mount
// one: that would empty its folder.
func (s *Store) Remove(tenant string) error {
	what := "remove driver copies of tenant " + tenant
	if err := plainName(tenant); err != nil {
		return fault.Wrap(fault.Invalid, what, err)
	}
	return fault.Wrap(fault.Internal, what, removeTree(filepath.Join(s.root, tenant)))
}

// Tidy removes what an interrupted Ensure or Remove left. It must not run beside one.
func (s *Store) Tidy() error {
	for _, folder := range []string{".", "*"} {
		left, err := filepath.Glob(filepath.Join(s.root, folder, asidePrefix+"*"))
		if err != nil {
			return fmt.Errorf("list interrupted driver copies: %w", err)
		}
		for _, dir := range left {
			if err := os.RemoveAll(dir); err != nil {
				return fault.Wrap(fault.Internal, "remove driver copy "+dir, err)
			}
		}
	}
	return nil
}

// removeTree renames first: half a copy must not pass for a whole one. What is not
// there is removed already.
func removeTree(dir string) error {
	aside := filepath.Join(filepath.Dir(dir), asidePrefix+filepath.Base(dir))
	if err := os.RemoveAll(aside); err != nil {
		return err
	}
	if err := os.Rename(dir, aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(aside)
}
