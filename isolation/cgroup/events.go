package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/spec"
)

// OOMKills counts the processes of an instance that the kernel killed for
// memory since its parent cgroup was made: the leaf's own count goes with the
// leaf. ok is false where there is no memory controller.
func (t *Tree) OOMKills(_ context.Context, uid spec.UID) (count uint64, ok bool, err error) {
	text, err := os.ReadFile(filepath.Join(t.paths.CgroupDir(uid), "memory.events"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("read memory events of %s: %w", uid, err)
	}
	count, ok = parseEvents(string(text))["oom_kill"]
	return count, ok, nil
}

// populated says whether any process lives below dir. A cgroup that is gone
// has none.
func populated(dir string) (bool, error) {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read events: %w", err)
	}
	value, ok := parseEvents(string(text))["populated"]
	if !ok {
		return false, fmt.Errorf("read events of %s: no line about populated", dir)
	}
	return value != 0, nil
}

// parseEvents reads "key number" lines and skips what is not one.
func parseEvents(text string) map[string]uint64 {
	events := map[string]uint64{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			events[key] = n
		}
	}
	return events
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
