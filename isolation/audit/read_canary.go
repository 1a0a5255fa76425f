package audit

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

	"github.com/gpuhost/gpuhost/isolation/warden/canary"
)

// baitFolder lies in the agent's own tmpfs beside the instances' folders.
const baitFolder = ".bait"

var errNoCanary = errors.New("no canary to send: the warden is not configured")

// tryNodes sends a canary, as host root, below the outer program: file modes do
// not stop it, so what refuses is that program. It tries the instance's own nodes
// and the bait.
func (a *Auditor) tryNodes(ctx context.Context, want Want) ([]canary.Result, error) {
	folder, err := a.layBait()
	if err != nil {
		return nil, err
	}
	var nodes []canary.Node
	for name, n := range bait(a.config.UVMMajor()) {
		nodes = append(nodes, canary.Node{Path: filepath.Join(folder, name), Major: n.major, Minor: n.minor})
	}
	own := a.config.Paths.NodeDir(want.Lease.UID)
	for _, n := range want.Nodes {
		nodes = append(nodes, canary.Node{Path: filepath.Join(own, n.Name), Major: n.Major, Minor: n.Minor})
	}
	slices.SortFunc(nodes, func(a, b canary.Node) int { return strings.Compare(a.Path, b.Path) })
	return a.send(ctx, want, canary.Options{Nodes: nodes})
}

// tryAsTenant sends one as the tenant's mapped root to the nodes of all others.
func (a *Auditor) tryAsTenant(ctx context.Context, want Want) ([]canary.Result, error) {
	found, err := filepath.Glob(filepath.Join(a.config.Paths.Nodes, "*", "nvidia*"))
	if err != nil {
		return nil, fmt.Errorf("list nodes of other tenants: %w", err)
	}
	own := a.config.Paths.NodeDir(want.Lease.UID) + "/"
	var nodes []canary.Node
	inodes := map[string]uint64{}
	for _, path := range found {
		var st unix.Stat_t
		if strings.HasPrefix(path, own) || strings.Contains(path, "/"+baitFolder+"/") || unix.Lstat(path, &st) != nil || want.Lease.IDs.Contains(st.Uid) {
			continue // its own, gone meanwhile, or of the same tenant
		}
		nodes = append(nodes, canary.Node{Path: path, Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)})
		inodes[path] = st.Ino
	}
	if len(nodes) == 0 {
		return nil, nil
	}
	results, err := a.send(ctx, want, canary.Options{Nodes: nodes, UID: int(want.Lease.IDs.Start)})
	return slices.DeleteFunc(results, func(r canary.Result) bool {
		return r.Errno == unix.ENOENT && !isInode(r.Path, inodes[r.Path])
	}), err
}

// isInode says whether path still is what it was. Other instances end while this
// one is audited, and a node that has gone with its instance is open to nobody.
func isInode(path string, inode uint64) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil && st.Ino == inode
}

// send runs one canary and insists on an answer for every node.
func (a *Auditor) send(ctx context.Context, want Want, o canary.Options) ([]canary.Result, error) {
	if a.config.Canary == nil {
		return nil, errNoCanary
	}
	results, err := a.config.Canary.Canary(ctx, want.Lease.UID, o)
	if err != nil {
		return nil, err
	}
	for _, n := range o.Nodes {
		if !slices.ContainsFunc(results, func(r canary.Result) bool { return r.Path == n.Path }) {
			return nil, fmt.Errorf("canary did not answer for %s", n.Path)
		}
	}
	return results, nil
}

// layBait makes the bait once, outside every cgroup with a device program: mknod
// inside one is refused. The nodes are root's own and nobody else can reach them.
func (a *Auditor) layBait() (string, error) {
	folder := filepath.Join(a.config.Paths.Nodes, baitFolder)
	if err := os.Mkdir(folder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("lay bait: %w", err)
	}
	for name, n := range bait(a.config.UVMMajor()) {
		err := unix.Mknod(filepath.Join(folder, name), unix.S_IFCHR|0o600, int(unix.Mkdev(n.major, n.minor)))
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return "", fmt.Errorf("lay bait %s: %w", name, err)
		}
	}
	return folder, nil
}
