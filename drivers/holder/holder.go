// Package holder finds the processes that have a character device open or
// mapped, by looking at every process of the host. It is how a GPU is proved
// unheld before it changes hands: by the device's number, never by a name,
// because a tenant may call its node what it likes.
//
// It implements the port Holders of package drivers, and needs CAP_SYS_PTRACE in
// the host's own process namespace.
package holder

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

	"github.com/gpuhost/gpuhost/drivers"
)

// Proc looks through a proc file system.
type Proc struct {
	Root string // "/proc"
	// SkipForbidden passes over processes the kernel does not let us look at. It
	// is for simulated hosts in a sandbox, whose init is out of reach; with a real
	// GPU such a process proves nothing, and the look fails.
	SkipForbidden bool
}

// Holders lists every process that has the device, by pid. A process that ends
// while it is looked at holds nothing; one that cannot be looked at is an error,
// because nothing is then proved.
func (p Proc) Holders(ctx context.Context, major, minor uint32) ([]drivers.Holder, error) {
	entries, err := os.ReadDir(p.Root)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var found []drivers.Holder
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		holds, err := p.holds(pid, device{major, minor})
		if errors.Is(err, fs.ErrPermission) && p.SkipForbidden {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look at process %d: %w", pid, err)
		}
		if holds {
			found = append(found, p.describe(pid))
		}
	}
	slices.SortFunc(found, func(a, b drivers.Holder) int { return a.PID - b.PID })
	return found, nil
}

type device struct{ major, minor uint32 }

// holds looks at open files, then at mappings, which outlive the file they were
// made from.
func (p Proc) holds(pid int, d device) (bool, error) {
	for _, folder := range []string{"fd", "map_files"} {
		holds, err := d.isIn(filepath.Join(p.Root, strconv.Itoa(pid), folder))
		if holds || err != nil {
			return holds, err
		}
	}
	return false, nil
}

func (d device) isIn(folder string) (bool, error) {
	dir, err := os.Open(folder)
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil && !gone(err) {
		return false, err
	}
	for _, name := range names {
		is, err := d.is(int(dir.Fd()), name)
		if is || err != nil {
			return is, err
		}
	}
	return false, nil
}

// is asks for what the kernel knows without going to a file's server: a dead
// network file system must not stop the proof.
func (d device) is(dir int, name string) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(dir, name, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &st)
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	character := st.Mode&unix.S_IFMT == unix.S_IFCHR
	return character && st.Rdev_major == d.major && st.Rdev_minor == d.minor, nil
}

// gone says whether a process or file ended meanwhile. Reading the fd folder of
// a process that is just ending gives ESRCH.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}

// describe tells what it can of a holder; it may end any moment.
func (p Proc) describe(pid int) drivers.Holder {
	folder := filepath.Join(p.Root, strconv.Itoa(pid))
	h := drivers.Holder{PID: pid}
	if name, err := os.ReadFile(filepath.Join(folder, "comm")); err == nil {
		h.Command = printable(strings.TrimSpace(string(name)))
	}
	if status, err := os.ReadFile(filepath.Join(folder, "status")); err == nil {
		h.UID = realUID(string(status))
	}
	return h
}

// realUID reads it from /proc/PID/status: the folder's own owner is root for a
// process that may not be dumped.
func realUID(status string) uint32 {
	for line := range strings.Lines(status) {
		if rest, found := strings.CutPrefix(line, "Uid:"); found {
			uid, _ := strconv.ParseUint(strings.Fields(rest + " 0")[0], 10, 32)
			return uint32(uid)
		}
	}
	return 0
}

// printable keeps a tenant's process from writing control characters into our
// messages.
func printable(name string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, name)
}
