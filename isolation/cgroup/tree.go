package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
)

// Tree is the agent's part of the cgroup hierarchy. It holds no state of its
// own: the kernel is asked every time, so a restarted agent sees the same.
type Tree struct {
	paths    isolation.Paths
	uvmMajor func() uint32
}

var _ isolation.Cgroups = (*Tree)(nil)

// New takes the v2 mount and the agent's root below it. uvmMajor is the major
// of nvidia-uvm, 0 while there is none: the module may be loaded later, and get
// another after a reload. A mount that is not cgroup v2 is
// refused as unsupported.
func New(paths isolation.Paths, uvmMajor func() uint32) (*Tree, error) {
	const what = "use cgroup v2"
	var st unix.Statfs_t
	if err := unix.Statfs(paths.CgroupMount, &st); err != nil {
		return nil, fault.New(fault.Unsupported, what, "stat %s: %w", paths.CgroupMount, err)
	}
	if st.Type != unix.CGROUP2_SUPER_MAGIC {
		return nil, fault.New(fault.Unsupported, what, "%s is no cgroup v2 mount", paths.CgroupMount).
			WithHint("boot with systemd.unified_cgroup_hierarchy=1")
	}
	if !strings.HasPrefix(filepath.Clean("/"+paths.CgroupRoot), "/gpuhost") {
		return nil, fault.New(fault.Invalid, what, "root %q does not carry our mark", paths.CgroupRoot)
	}
	return &Tree{paths: paths, uvmMajor: uvmMajor}, nil
}

// Make creates the parent cgroup and attaches the outer program of the lease.
// Any other program on it is replaced in one step.
func (t *Tree) Make(_ context.Context, lease isolation.Lease) error {
	if len(lease.GPUs) > 0 && t.uvmMajor() == 0 {
		return fault.New(fault.Temporary, "make cgroup of "+string(lease.UID), "the kernel module nvidia-uvm is not loaded, without which no GPU computes").
			WithHint("modprobe nvidia-uvm")
	}
	dir, err := t.dir(lease.UID)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fault.Wrap(fault.Internal, "make cgroup of "+string(lease.UID), err)
	}
	if err := t.delegate(dir); err != nil {
		return err
	}
	parent, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open cgroup of %s: %w", lease.UID, err)
	}
	defer parent.Close()
	return replace(parent, t.rules(lease))
}

// Fence replaces the outer program by one that refuses everything. Opens that
// happened before stay open: the holders are ended by Kill.
func (t *Tree) Fence(_ context.Context, uid spec.UID) error {
	dir, err := t.open(uid)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no cgroup, no process. No later ENOENT means that.
	}
	if err != nil {
		return fmt.Errorf("open cgroup of %s: %w", uid, err)
	}
	defer dir.Close()
	return replace(dir, nil)
}

func (t *Tree) rules(lease isolation.Lease) []Rule {
	return Rules(isolation.Grant(lease, t.uvmMajor()))
}

// State reads the cgroup and compares its program with the lease's.
func (t *Tree) State(_ context.Context, lease isolation.Lease) (isolation.CgroupState, error) {
	dir, err := t.open(lease.UID)
	if errors.Is(err, fs.ErrNotExist) {
		return isolation.CgroupState{}, nil
	}
	if err != nil {
		return isolation.CgroupState{}, fmt.Errorf("open cgroup of %s: %w", lease.UID, err)
	}
	defer dir.Close()
	program, err := t.program(dir, lease)
	if err != nil {
		return isolation.CgroupState{}, err
	}
	populated, err := populated(dir.Name())
	if err != nil {
		return isolation.CgroupState{}, err
	}
	pids, err := pids(dir.Name())
	if err != nil {
		return isolation.CgroupState{}, err
	}
	return isolation.CgroupState{Exists: true, Program: program, Populated: populated, Pids: pids}, nil
}

func (t *Tree) program(dir *os.File, lease isolation.Lease) (isolation.Program, error) {
	own, err := attached(dir, 0)
	if err != nil {
		return isolation.ProgramNone, err
	}
	switch len(own) {
	case 0:
		return isolation.ProgramNone, nil
	case 1:
		return classify(own[0], t.rules(lease))
	default:
		return isolation.ProgramOther, nil
	}
}

func classify(program Attached, grant []Rule) (isolation.Program, error) {
	for _, known := range []struct {
		rules   []Rule
		program isolation.Program
	}{{grant, isolation.ProgramGrant}, {nil, isolation.ProgramDeny}} {
		same, err := program.Is(known.rules)
		if err != nil {
			return isolation.ProgramNone, err
		}
		if same {
			return known.program, nil
		}
	}
	return isolation.ProgramOther, nil
}

// Effective reads every device program that the kernel asks for a process in
// the task's leaf, runc's inner ones first.
func (t *Tree) Effective(_ context.Context, uid spec.UID) ([]Attached, error) {
	dir, err := t.openLeaf(uid)
	if err != nil {
		return nil, fmt.Errorf("open leaf cgroup of %s: %w", uid, err)
	}
	defer dir.Close()
	return attached(dir, unix.BPF_F_QUERY_EFFECTIVE)
}

// Outer reads the programs attached to the parent itself.
func (t *Tree) Outer(_ context.Context, uid spec.UID) ([]Attached, error) {
	dir, err := t.open(uid)
	if err != nil {
		return nil, fmt.Errorf("open cgroup of %s: %w", uid, err)
	}
	defer dir.Close()
	return attached(dir, 0)
}

// dir is the parent cgroup of an instance. A uid that is none is refused in this
// one place: "" would be the agent's root, and its end that of every instance.
func (t *Tree) dir(uid spec.UID) (string, error) {
	if !uid.Valid() || slices.Contains(ownCgroups(), string(uid)) {
		return "", fault.New(fault.Internal, "find cgroup", "%q is no instance's uid", uid)
	}
	return t.paths.CgroupDir(uid), nil
}

func (t *Tree) open(uid spec.UID) (*os.File, error) {
	dir, err := t.dir(uid)
	if err != nil {
		return nil, err
	}
	return os.Open(dir)
}

func (t *Tree) openLeaf(uid spec.UID) (*os.File, error) {
	if _, err := t.dir(uid); err != nil {
		return nil, err
	}
	return os.Open(filepath.Join(t.paths.CgroupMount, t.paths.TaskCgroup(uid)))
}

// List names the instances that have a parent cgroup here. Beside them lie the
// cgroups of the agent's own processes.
func (t *Tree) List(context.Context) ([]spec.UID, error) {
	entries, err := os.ReadDir(filepath.Join(t.paths.CgroupMount, t.paths.CgroupRoot))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list instance cgroups: %w", err)
	}
	var uids []spec.UID
	for _, e := range entries {
		if uid := spec.UID(e.Name()); e.IsDir() && uid.Valid() && !slices.Contains(ownCgroups(), e.Name()) {
			uids = append(uids, uid)
		}
	}
	return uids, nil
}

// ownCgroups are those of the wardens (isolation/warden/launch).
func ownCgroups() []string { return []string{"wardens", "services"} }

// Remove deletes the parent and whatever empty cgroup is left below it. A
// cgroup with processes is a busy fault that names them.
func (t *Tree) Remove(_ context.Context, uid spec.UID) error {
	dir, err := t.dir(uid)
	if err != nil {
		return err
	}
	err = removeTree(dir)
	if !errors.Is(err, unix.EBUSY) {
		return fault.Wrap(fault.Internal, "remove cgroup of "+string(uid), err)
	}
	holders, _ := pids(dir)
	return fault.New(fault.Busy, "remove cgroup of "+string(uid), "processes %v are still in it: %w", holders, err)
}

// Destroy ends every process in the agent's root cgroup, wardens and resolver
// included, and removes it. It is for taking the agent off a host, not for its
// end: what an agent leaves behind the next one finds.
func (t *Tree) Destroy(ctx context.Context) error {
	what := "remove " + t.paths.CgroupRoot
	dir := filepath.Join(t.paths.CgroupMount, t.paths.CgroupRoot)
	err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
	if gone(err) {
		return nil
	}
	if err == nil {
		err = waitEmpty(ctx, dir)
	}
	if err == nil {
		err = removeTree(dir)
	}
	return fault.Wrap(fault.Internal, what, err)
}

// removeTree removes the children first: a cgroup with a child is never empty.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}
