package hosttest

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Snapshot is what a test could leave behind, each thing one line of text:
// "cgroup /gpuhost-1f…", "mount nsfs /run/…", "link gh-1f…", "process 41 runc".
type Snapshot []string

// leakGrace is how long ended processes may take to be reaped.
const leakGrace = 5 * time.Second

// NoLeaks compares the kernel's state now with the state after the test and
// its other cleanups, and fails the test on what was left. Of the machine's
// cgroups, which are shared with whatever else runs, only those with mark in
// their path count; "" means all.
func NoLeaks(t testing.TB, mark string) {
	t.Helper()
	before := Leaks(t, mark)
	t.Cleanup(func() {
		deadline := time.Now().Add(leakGrace)
		left := Leaks(t, mark).since(before)
		// Nothing tells when an orphan of an orphan has been reaped.
		for len(left) > 0 && time.Now().Before(deadline) {
			time.Sleep(20 * time.Millisecond)
			left = Leaks(t, mark).since(before)
		}
		for _, what := range left {
			t.Errorf("left behind: %s", what)
		}
	})
}

// Leaks reads the present cgroups with mark in their path, mounts (pinned
// namespaces are mounts too), network devices and processes.
func Leaks(t testing.TB, mark string) Snapshot {
	t.Helper()
	var s Snapshot
	for _, read := range []func() (Snapshot, error){
		func() (Snapshot, error) { return cgroups(mark) }, mountPoints, links, processes,
	} {
		part, err := read()
		if err != nil {
			t.Fatalf("take snapshot: %v", err)
		}
		s = append(s, part...)
	}
	slices.Sort(s)
	return s
}

// since is what s has and before had not.
func (s Snapshot) since(before Snapshot) Snapshot {
	return slices.DeleteFunc(slices.Clone(s), func(what string) bool {
		return slices.Contains(before, what)
	})
}

func cgroups(mark string) (Snapshot, error) {
	const root = "/sys/fs/cgroup"
	var s Snapshot
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed while we walked
		}
		if err != nil {
			return err
		}
		if entry.IsDir() && strings.Contains(path, mark) {
			s = append(s, "cgroup "+strings.TrimPrefix(path, root))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list cgroups: %w", err)
	}
	return s, nil
}

// mountPoints reads mountinfo: field 5 is the mount point, and the file system
// type follows the lone hyphen (proc(5)).
func mountPoints() (Snapshot, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	var s Snapshot
	for line := range strings.Lines(string(text)) {
		mount, source, _ := strings.Cut(line, " - ")
		fields := strings.Fields(mount)
		fsType, _, _ := strings.Cut(source, " ")
		s = append(s, fmt.Sprintf("mount %s %s (%s)", fsType, fields[4], fields[0]))
	}
	return s, nil
}

func links() (Snapshot, error) {
	devices, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var s Snapshot
	for _, d := range devices {
		s = append(s, fmt.Sprintf("link %s (%d)", d.Name, d.Index))
	}
	return s, nil
}

func processes() (Snapshot, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var s Snapshot
	for _, dir := range dirs {
		name, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil {
			continue // ended while we read
		}
		s = append(s, fmt.Sprintf("process %s %s", filepath.Base(dir), strings.TrimSpace(string(name))))
	}
	return s, nil
}
