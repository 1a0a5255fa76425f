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

	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/isolation/warden/canary"
)

// baitFolder lies in the agent's own tmpfs beside the instances' folders.
const baitFolder = ".bait"

var errNoCanary = errors.New("no canary to send: the warden is not configured")

// try sends a canary below the outer program, once for both: as host root to the
// instance's own nodes and the bait, where file modes do not stop it and what refuses
// is that program; as the tenant's mapped root to the nodes of all others.
func (a *Auditor) try(ctx context.Context, want Want) (canary.Answer, error) {
	if a.config.Canary == nil {
		return canary.Answer{}, errNoCanary
	}
	own, err := a.ownNodes(want)
	if err != nil {
		return canary.Answer{}, err
	}
	others, inodes, err := a.othersNodes(want.Lease)
	if err != nil {
		return canary.Answer{}, err
	}
	tries := canary.Tries{Root: own, Tenant: others, UID: int(want.Lease.IDs.Start)}
	answer, err := a.config.Canary.Canary(ctx, want.Lease.UID, tries)
	if err != nil {
		return canary.Answer{}, err
	}
	if err := errors.Join(answersAll(own, answer.Root), answersAll(others, answer.Tenant)); err != nil {
		return canary.Answer{}, err
	}
	answer.Tenant = slices.DeleteFunc(answer.Tenant, func(r canary.Result) bool {
		return r.Errno == unix.ENOENT && !isInode(r.Path, inodes[r.Path])
	})
	return answer, nil
}

// ownNodes are the instance's and the bait.
func (a *Auditor) ownNodes(want Want) ([]canary.Node, error) {
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
	return nodes, nil
}

// othersNodes are those of all other tenants, and the inode of each.
func (a *Auditor) othersNodes(lease isolation.Lease) ([]canary.Node, map[string]uint64, error) {
	found, err := filepath.Glob(filepath.Join(a.config.Paths.Nodes, "*", "nvidia*"))
	if err != nil {
		return nil, nil, fmt.Errorf("list nodes of other tenants: %w", err)
	}
	own := a.config.Paths.NodeDir(lease.UID) + "/"
	var nodes []canary.Node
	inodes := map[string]uint64{}
	for _, path := range found {
		var st unix.Stat_t
		if strings.HasPrefix(path, own) || strings.Contains(path, "/"+baitFolder+"/") || unix.Lstat(path, &st) != nil || lease.IDs.Contains(st.Uid) {
			continue // its own, gone meanwhile, or of the same tenant
		}
		nodes = append(nodes, canary.Node{Path: path, Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)})
		inodes[path] = st.Ino
	}
	return nodes, inodes, nil
}

// isInode says whether path still is what it was. Other instances end while this
// one is audited, and a node that has gone with its instance is open to nobody.
func isInode(path string, inode uint64) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil && st.Ino == inode
}

// answersAll insists on an answer for every node.
func answersAll(nodes []canary.Node, results []canary.Result) error {
	for i, n := range nodes {
		if i >= len(results) || results[i].Path != n.Path {
			return fmt.Errorf("canary did not answer for %s", n.Path)
		}
	}
	return nil
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
