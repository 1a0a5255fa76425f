package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/spec"
)

// The two lists of a cgroup's members.
const (
	listProcesses = "cgroup.procs"
	listThreads   = "cgroup.threads"
)

// Threads lists the live threads of an instance: of the leaf and all below the
// parent but the agent's own canary.
func (t *Tree) Threads(_ context.Context, uid spec.UID) ([]int, error) {
	dir, err := t.dir(uid)
	if err != nil {
		return nil, err
	}
	return members(dir, listThreads, filepath.Join(t.paths.CgroupMount, t.paths.CanaryCgroup(uid)))
}

func pids(dir string) ([]int, error)    { return members(dir, listProcesses, "") }
func threads(dir string) ([]int, error) { return members(dir, listThreads, "") }

// members walks the subtree, passing over the folder but; one that vanishes
// meanwhile holds nobody.
func members(dir, list, but string) ([]int, error) {
	own, err := readPids(filepath.Join(dir, list))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	entries, err := folders(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	for _, e := range entries {
		child := filepath.Join(dir, e.Name())
		if !e.IsDir() || child == but {
			continue
		}
		below, err := members(child, list, but)
		if err != nil {
			return nil, err
		}
		own = append(own, below...)
	}
	slices.Sort(own)
	return slices.Compact(own), nil
}

// folders lists a cgroup's folder unless it has no child: the kernel counts the
// children of a cgroup in its links, and its files are many.
func folders(dir string) ([]os.DirEntry, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil || st.Nlink == 2 {
		return nil, err
	}
	return os.ReadDir(dir)
}

func readPids(file string) ([]int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read processes: %w", err)
	}
	return parsePids(string(text))
}

// parsePids reads cgroup.procs. The kernel writes 0 for a process that this pid
// namespace cannot see; it cannot be judged, so it is an error.
func parsePids(text string) ([]int, error) {
	var pids []int
	for _, word := range strings.Fields(text) {
		pid, err := strconv.Atoi(word)
		if err != nil || pid <= 0 {
			return nil, fmt.Errorf("read processes: %q is no process of this namespace", word)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}
