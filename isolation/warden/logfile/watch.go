package logfile

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// watch tells when a folder's log has changed, by inotify through the runtime's
// poller: a reader that waits costs no thread and no wake-up.
//
// The folder's end is seen in its parent: a folder that somebody has open, as a
// reader has, gives no IN_DELETE_SELF.
type watch struct {
	file   *os.File
	parent int // watch descriptor
	name   string
	buf    [4096]byte
}

func newWatch(dir string) (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make inotify: %w", err)
	}
	w := &watch{file: os.NewFile(uintptr(fd), "inotify"), name: filepath.Base(dir)}
	w.parent, err = unix.InotifyAddWatch(fd, filepath.Dir(dir), unix.IN_DELETE|unix.IN_MOVED_FROM|unix.IN_ONLYDIR)
	if err == nil {
		_, err = unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY|unix.IN_CREATE|unix.IN_ONLYDIR)
	}
	if err != nil {
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
	return w.gone(w.buf[:n]), nil
}

// gone says whether one of the events is the end of the folder.
func (w *watch) gone(events []byte) bool {
	for len(events) >= unix.SizeofInotifyEvent {
		// struct inotify_event: int wd; uint32 mask, cookie, len; char name[len]
		wd := int(int32(binary.NativeEndian.Uint32(events)))
		size := min(len(events), unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(events[12:])))
		name := unix.ByteSliceToString(events[unix.SizeofInotifyEvent:size])
		if wd == w.parent && name == w.name {
			return true
		}
		events = events[size:]
	}
	return false
}
