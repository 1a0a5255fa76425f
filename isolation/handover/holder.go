// Package handover finds out who still holds a GPU.
//
//	holders, err := handover.Holders(ctx, 195, 0)
//
// Revoking access does not close what is open: an open file of a GPU's node, also
// one passed on or inherited, is full access. So before a GPU goes to the next
// tenant no process of the host may hold one. The kernel has no index of that:
// every descriptor and every mapping in /proc is asked for its device number.
//
// It must run in the host's process namespace, or it sees nothing. Neighbours:
// drivers (its hand-over decides what a holder means).
package handover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// Holder is a process with an open file or a mapping of a device.
type Holder struct {
	PID     int
	Command string // the process's own text, made printable
	UID     uint32 // the effective user, as the host numbers it
}

// Holders lists the processes that hold the character device, by pid. Processes
// that end while it looks hold nothing; one that cannot be looked into is an
// error, because it might.
func Holders(ctx context.Context, major, minor uint32) ([]Holder, error) {
	holders, err := scan(ctx, "/proc", major, minor)
	return holders, fault.Wrap(fault.Internal, fmt.Sprintf("look for holders of device %d:%d", major, minor), err)
}

func scan(ctx context.Context, proc string, major, minor uint32) ([]Holder, error) {
	pids, err := numbers(proc)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var mu sync.Mutex
	var holders []Holder
	look := &lookout{rdev: unix.Mkdev(major, minor)}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, pid := range pids {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			held, err := look.holds(proc, pid)
			if err != nil || !held {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			holders = append(holders, describe(proc, pid))
			return nil
		})
	}
	err = group.Wait()
	slices.SortFunc(holders, func(a, b Holder) int { return a.PID - b.PID })
	return holders, err
}

// numbers lists the entries of a folder that are numbers: the processes in /proc,
// the threads in /proc/PID/task.
func numbers(dir string) ([]int, error) {
	file, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	names, err := file.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var all []int
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			all = append(all, n)
		}
	}
	return all, nil
}

// lookout is one look at all processes for one device. Most of what processes map
// is the same few libraries: each file found to be something else is asked once.
type lookout struct {
	rdev  uint64
	other sync.Map // mapping.file of a file that is not the device
}

// holds looks at descriptors first: they are cheap and the usual case. A mapping
// keeps the device open after its descriptor was closed.
//
// Every thread is asked. One may have a table of descriptors of its own
// (CLONE_FILES is a choice), and a process whose first thread has ended shows the
// files and memory of none, though the others live on with both.
func (l *lookout) holds(proc string, pid int) (bool, error) {
	tids, err := threads(proc, pid)
	if err != nil {
		return false, err
	}
	for i, tid := range tids {
		if i > 0 && shareFiles(tids[i-1], tid) {
			continue
		}
		held, err := opens(threadDir(proc, tid), l.rdev)
		if held || (err != nil && !ended(err)) {
			return held, err
		}
	}
	return l.maps(proc, tids)
}

// threads lists the threads of a process, none of one that has ended.
func threads(proc string, pid int) ([]int, error) {
	tids, err := numbers(filepath.Join(threadDir(proc, pid), "task"))
	if ended(err) {
		return nil, nil
	}
	return tids, err
}

// threadDir is the folder of a thread. It is in no listing of /proc, and has all
// that a process's has; /proc/PID/task/TID has no map_files.
func threadDir(proc string, tid int) string { return filepath.Join(proc, strconv.Itoa(tid)) }

// shareFiles says that two threads are known to have one table of descriptors,
// which need not be read twice. A kernel without kcmp lets all be read.
func shareFiles(a, b int) bool {
	const kcmpFiles = 2 // KCMP_FILES of linux/kcmp.h
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(a), uintptr(b), kcmpFiles, 0, 0, 0)
	return errno == 0 && order == 0
}

// opens follows each link of /proc/PID/fd with stat, which the kernel answers
// from the open file itself: neither a name nor a driver is asked. O_PATH
// descriptors answer too, though they give no access; that errs on the safe side.
func opens(dir string, rdev uint64) (bool, error) {
	fds, err := os.Open(filepath.Join(dir, "fd"))
	if err != nil {
		return false, err
	}
	defer fds.Close()
	names, err := fds.Readdirnames(-1)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		var st unix.Stat_t
		err := unix.Fstatat(int(fds.Fd()), name, &st, 0)
		if err != nil && !ended(err) {
			return false, &fs.PathError{Op: "stat", Path: filepath.Join(dir, "fd", name), Err: err}
		}
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == rdev {
			return true, nil
		}
	}
	return false, nil
}

// maps stats what a process maps: its threads have one memory, seen through any
// that lives.
func (l *lookout) maps(proc string, tids []int) (bool, error) {
	for _, tid := range tids {
		dir := threadDir(proc, tid)
		text, err := os.ReadFile(filepath.Join(dir, "maps"))
		if ended(err) || (err == nil && len(text) == 0) {
			continue
		}
		if err != nil {
			return false, err
		}
		return l.mapped(dir, string(text))
	}
	return false, nil
}

// mapped asks each file of maps. /proc/PID/maps gives file system and inode, not
// the device number, and names are chosen by whoever made the node: so files are
// asked through map_files.
func (l *lookout) mapped(dir, maps string) (bool, error) {
	for _, m := range mappings(maps) {
		if _, known := l.other.Load(m.file); known {
			continue
		}
		var st unix.Stat_t
		err := unix.Stat(filepath.Join(dir, "map_files", m.span), &st)
		if ended(err) {
			continue
		}
		if err != nil {
			return false, &fs.PathError{Op: "stat mapping", Path: filepath.Join(dir, "map_files", m.span), Err: err}
		}
		if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == l.rdev {
			return true, nil
		}
		l.other.Store(m.file, true)
	}
	return false, nil
}

// mapping is a file that a process maps: where first, and which file, as file
// system, inode and name.
type mapping struct{ span, file string }

// mappings reads /proc/PID/maps, leaving out memory without a file.
func mappings(text string) []mapping {
	var all []mapping
	last := ""
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 6 || words[4] == "0" {
			continue
		}
		file := strings.Join(words[3:], " ")
		if from, to, ok := strings.Cut(words[0], "-"); ok && file != last {
			all = append(all, mapping{trim(from) + "-" + trim(to), file})
		}
		last = file
	}
	return all
}

// trim: map_files has no leading zeros, maps pads to eight digits.
func trim(address string) string {
	if short := strings.TrimLeft(address, "0"); short != "" {
		return short
	}
	return "0"
}

// ended says that the process, descriptor or mapping went away meanwhile. Kernel
// threads and zombies answer ENOENT or ESRCH too: they hold no user's files.
func ended(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}

func describe(proc string, pid int) Holder {
	dir := filepath.Join(proc, strconv.Itoa(pid))
	h := Holder{PID: pid, Command: "?"}
	if comm, err := os.ReadFile(filepath.Join(dir, "comm")); err == nil {
		h.Command = fault.Printable(strings.TrimSuffix(string(comm), "\n"))
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err == nil {
		h.UID = st.Uid
	}
	return h
}
