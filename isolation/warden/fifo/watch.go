package fifo

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Seen is what a watch has seen happen to the outputs of a process.
type Seen struct {
	Opened  bool // somebody opened stdout or stderr
	Removed bool // stdout, stderr or their folder was taken away
}

// WatchRemoval returns an inotify descriptor that becomes readable when a FIFO
// leaves the folder dir or the folder itself goes: the owner's way of saying
// that the task is over. [Read] tells.
func WatchRemoval(dir string) (fd int, err error) { return watch(dir, 0) }

// WatchAll is [WatchRemoval] and also sees that a FIFO is opened: poll does not
// tell when a writer comes that has nothing to write yet.
func WatchAll(dir string) (fd int, err error) { return watch(dir, unix.IN_OPEN) }

func watch(dir string, more uint32) (int, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return -1, fmt.Errorf("make inotify: %w", err)
	}
	const removal = unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
	if _, err := unix.InotifyAddWatch(fd, dir, removal|more); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("watch pipes: %w", &os.PathError{Op: "inotify", Path: dir, Err: err})
	}
	return fd, nil
}

// Read takes the events waiting on a watch's descriptor, without blocking.
func Read(fd int) Seen {
	var seen Seen
	var buf [4096]byte
	for {
		n, err := unix.Read(fd, buf[:])
		if err != nil || n <= 0 {
			return seen
		}
		seen.add(buf[:n])
	}
}

func (s *Seen) add(events []byte) {
	for len(events) >= unix.SizeofInotifyEvent {
		// struct inotify_event: int wd; uint32 mask, cookie, len; char name[len]
		mask := binary.NativeEndian.Uint32(events[4:])
		size := min(len(events), unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(events[12:])))
		name := unix.ByteSliceToString(events[unix.SizeofInotifyEvent:size])
		output := name == Stdout || name == Stderr
		switch {
		case mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_IGNORED) != 0:
			s.Removed = true
		case output && mask&unix.IN_OPEN != 0:
			s.Opened = true
		case output:
			s.Removed = true
		}
		events = events[size:]
	}
}
