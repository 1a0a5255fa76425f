package logfile

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// watch tells when a folder's log has changed, by inotify through the runtime's
// poller: a reader that waits costs no thread and no wake-up.
type watch struct {
	file *os.File
	buf  [4096]byte
}

func newWatch(dir string) (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make inotify: %w", err)
	}
	w := &watch{file: os.NewFile(uintptr(fd), "inotify")}
	const events = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_DELETE_SELF | unix.IN_ONLYDIR
	if _, err := unix.InotifyAddWatch(fd, dir, events); err != nil {
		w.Close()
		return nil, fmt.Errorf("watch log folder: %w", err)
	}
	return w, nil
}

// Close ends the watch and a wait.
func (w *watch) Close() error { return w.file.Close() }

// wait returns after at least one event; gone says that the folder was removed.
func (w *watch) wait(ctx context.Context) (gone bool, err error) {
	stop := context.AfterFunc(ctx, func() { _ = w.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	n, err := w.file.Read(w.buf[:])
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if errors.Is(err, os.ErrClosed) {
		return false, os.ErrClosed
	}
	if err != nil {
		return false, fmt.Errorf("wait for log: %w", err)
	}
	return hasIgnored(w.buf[:n]), nil
}

// hasIgnored says whether one of the events is the end of the watch.
func hasIgnored(events []byte) bool {
	for len(events) >= unix.SizeofInotifyEvent {
		// struct inotify_event: int wd; uint32 mask, cookie, len; char name[len]
		mask := binary.NativeEndian.Uint32(events[4:])
		size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(events[12:]))
		if mask&(unix.IN_IGNORED|unix.IN_DELETE_SELF) != 0 {
			return true
		}
		events = events[min(len(events), size):]
	}
	return false
}
