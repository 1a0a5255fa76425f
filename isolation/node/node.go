// Package node keeps the private device nodes of each instance.
//
//	nodes, err := node.Open(paths, uvmMajor)
//	err = nodes.Make(ctx, lease)        // <nodes>/<uid>/nvidia0, nvidiactl, nvidia-uvm
//	err = nodes.Remove(ctx, lease.UID)
//
// The nodes lie in a tmpfs of the agent's own, because the container's /dev is
// nodev and because nobody else may reach them. Each is 0600 and belongs to the
// user the container runs as, in the tenant's user namespace; the container sees it through a bind
// mount, so inode, owner and mode are one and the same on both sides: that is
// why wrong modes are mended in place, and only a wrong number is replaced.
//
// The tmpfs is MS_PRIVATE: a mount below a shared one could not be moved into a
// running container. It stays in the agent's mount namespace when the agent
// restarts, and is found there.
//
// Neighbours: isolation (its port Nodes, and Grant, which decides the list),
// isolation/audit (control D4).
package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
)

const (
	// nodeMode is every node's mode: read and write for the owner alone.
	nodeMode = unix.S_IFCHR | 0o600
	// folderMode lets the mapped root pass but not list; who lacks the name of an
	// instance finds nothing.
	folderMode = 0o711
	// tmpfsOptions bound what a defect could fill; 4,096 inodes are some 370 instances of 8 GPUs,
	// which take 11 each: the folder, nvidiactl, nvidia-uvm and the GPUs'.
	tmpfsOptions = "mode=0711,size=1m,nr_inodes=4096"
)

// Store is the tmpfs with the nodes. It keeps no state beside it.
type Store struct {
	paths    isolation.Paths
	uvmMajor func() uint32
}

var _ isolation.Nodes = (*Store)(nil)

// Open mounts the tmpfs at paths.Nodes, or adopts the one that an earlier
// agent mounted there. uvmMajor is the major of nvidia-uvm, 0 while there is
// none: it is asked each time, for the module may be loaded later.
func Open(paths isolation.Paths, uvmMajor func() uint32) (*Store, error) {
	s := &Store{paths: paths, uvmMajor: uvmMajor}
	if err := s.mount(); err != nil {
		return nil, fault.Wrap(fault.Internal, "open private device nodes", err)
	}
	return s, nil
}

func (s *Store) mount() error {
	dir := s.paths.Nodes
	if err := os.MkdirAll(dir, folderMode); err != nil {
		return err
	}
	mounted, err := isMountOf(dir, unix.TMPFS_MAGIC)
	if err != nil {
		return err
	}
	if !mounted {
		err := unix.Mount("gpuhost-nodes", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, tmpfsOptions)
		if err != nil {
			return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
		}
	}
	if err := unix.Mount("", dir, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make %s private: %w", dir, err)
	}
	return usable(dir)
}

// usable refuses an adopted mount on which no node could be opened.
func usable(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("stat %s: %w", dir, err)
	}
	if st.Flags&unix.ST_NODEV != 0 {
		return fmt.Errorf("%s is mounted nodev", dir)
	}
	return nil
}

// isMountOf says whether dir itself is the root of a mount of that type.
func isMountOf(dir string, magic int64) (bool, error) {
	var here, above unix.Stat_t
	var st unix.Statfs_t
	if err := unix.Lstat(dir, &here); err != nil {
		return false, fmt.Errorf("stat %s: %w", dir, err)
	}
	if err := unix.Lstat(filepath.Dir(dir), &above); err != nil {
		return false, fmt.Errorf("stat above %s: %w", dir, err)
	}
	if err := unix.Statfs(dir, &st); err != nil {
		return false, fmt.Errorf("stat file system of %s: %w", dir, err)
	}
	return here.Dev != above.Dev && int64(st.Type) == magic, nil
}

// Destroy unmounts the tmpfs; containers that run keep their own binds. It is for
// taking the agent off a host, not for its end: the next agent adopts the mount.
func (s *Store) Destroy() error {
	err := unix.Unmount(s.paths.Nodes, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil // not mounted
	}
	return fault.Wrap(fault.Internal, "unmount private device nodes", err)
}

// Make makes exactly the nodes of the lease and removes whatever else lies there.
func (s *Store) Make(_ context.Context, lease isolation.Lease) error {
	if err := s.make(lease); err != nil {
		return fault.Wrap(fault.Internal, "make device nodes of "+string(lease.UID), err)
	}
	return nil
}

func (s *Store) make(lease isolation.Lease) error {
	dir, err := s.dir(lease.UID)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, folderMode); err != nil {
		return err
	}
	want := isolation.Grant(lease, s.uvmMajor())
	if err := removeOthers(dir, want); err != nil {
		return err
	}
	for _, n := range want {
		if err := ensure(filepath.Join(dir, n.Name), n, lease.NodeOwner()); err != nil {
			return err
		}
	}
	return nil
}

func removeOthers(dir string, want []isolation.Node) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if slices.ContainsFunc(want, func(n isolation.Node) bool { return n.Name == e.Name() }) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// ensure mends the node at path, or makes it aside and renames it there, so that
// nobody ever sees one with another owner than its own.
func ensure(path string, n isolation.Node, owner uint32) error {
	st, err := lstat(path)
	switch {
	case err == nil && isNode(st, n):
		return own(path, owner)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR:
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	aside := path + ".new"
	if err := os.RemoveAll(aside); err != nil {
		return err
	}
	if err := unix.Mknod(aside, nodeMode, int(unix.Mkdev(n.Major, n.Minor))); err != nil {
		return fmt.Errorf("make node %s: %w", n.Name, err)
	}
	if err := own(aside, owner); err != nil {
		return err
	}
	return os.Rename(aside, path)
}

// own closes the mode before it gives the node away: the other order would let
// the new owner in for a moment with the old mode.
func own(path string, owner uint32) error {
	if err := os.Chmod(path, nodeMode&0o7777); err != nil {
		return err
	}
	return os.Lchown(path, int(owner), int(owner))
}

func lstat(path string) (unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return st, &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	return st, nil
}

func isNode(st unix.Stat_t, n isolation.Node) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(n.Major, n.Minor)
}

// State lists what lies in the instance's folder. It is complete when that is
// the lease's grant with the right owner and mode, and nothing else.
func (s *Store) State(_ context.Context, lease isolation.Lease) (isolation.NodesState, error) {
	want := isolation.Grant(lease, s.uvmMajor())
	dir, err := s.dir(lease.UID)
	if err != nil {
		return isolation.NodesState{}, err
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return isolation.NodesState{Complete: len(want) == 0}, nil
	}
	if err != nil {
		return isolation.NodesState{}, fmt.Errorf("list device nodes of %s: %w", lease.UID, err)
	}
	state := isolation.NodesState{Complete: len(entries) == len(want)}
	for _, e := range entries {
		st, err := lstat(filepath.Join(dir, e.Name()))
		if err != nil {
			return isolation.NodesState{}, err
		}
		found := isolation.Node{Name: e.Name(), Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)}
		right := st.Mode == nodeMode && st.Uid == lease.NodeOwner() && st.Gid == lease.NodeOwner()
		state.Complete = state.Complete && right && slices.Contains(want, found)
		state.Nodes = append(state.Nodes, found)
	}
	return state, nil
}

// Remove removes the instance's folder.
func (s *Store) Remove(_ context.Context, uid spec.UID) error {
	dir, err := s.dir(uid)
	if err != nil {
		return err
	}
	return fault.Wrap(fault.Internal, "remove device nodes of "+string(uid), os.RemoveAll(dir))
}

// dir is the folder of an instance. A uid that is none is refused in this one
// place: "" would be the folder of all.
func (s *Store) dir(uid spec.UID) (string, error) {
	if !uid.Valid() {
		return "", fault.New(fault.Internal, "find device nodes", "%q is no instance's uid", uid)
	}
	return s.paths.NodeDir(uid), nil
}

// List names the instances that have a folder here. Beside them lies the audit's
// own, whose name is no uid.
func (s *Store) List(context.Context) ([]spec.UID, error) {
	entries, err := os.ReadDir(s.paths.Nodes)
	if err != nil {
		return nil, fmt.Errorf("list device nodes: %w", err)
	}
	var uids []spec.UID
	for _, e := range entries {
		if uid := spec.UID(e.Name()); e.IsDir() && uid.Valid() {
			uids = append(uids, uid)
		}
	}
	return uids, nil
}
