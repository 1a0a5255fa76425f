// Package fifo opens the named pipes between a container's shim and the wardens.
//
// A FIFO has traps: opened for reading alone it reports end of file while
// nobody has opened the other side yet, and opening blocks. A [Reader] waits
// through that; [OpenBoth] never sees an end at all.
package fifo

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Names of the FIFOs in the folder of a task or of an exec process.
const (
	Stdin  = "stdin"
	Stdout = "stdout"
	Stderr = "stderr"
)

// Make makes a FIFO that only its owner may use; one that is there is kept.
func Make(path string) error {
	if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make pipe: %w", &os.PathError{Op: "mkfifo", Path: path, Err: err})
	}
	return nil
}

// OpenBoth opens both ends of a FIFO in one descriptor, not blocking. Reading it
// never ends, whoever else comes and goes: a shim that restarts finds its
// reader still there.
func OpenBoth(path string) (fd int, err error) { return open(path, unix.O_RDWR) }

func open(path string, mode int) (int, error) {
	fd, err := unix.Open(path, mode|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, fmt.Errorf("open pipe: %w", &os.PathError{Op: "open", Path: path, Err: err})
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		unix.Close(fd)
		return -1, fmt.Errorf("open pipe: %s is no FIFO", path)
	}
	return fd, nil
}

// Reader reads a FIFO from its first writer's first byte to the last writer's
// close. Before a writer has come, Read waits.
type Reader struct {
	file *os.File
	raw  rawConn
}

type rawConn interface {
	Read(func(fd uintptr) (done bool)) error
}

// OpenReader opens a FIFO for reading without waiting for a writer.
func OpenReader(path string) (*Reader, error) {
	fd, err := open(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), path)
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("open pipe: %w", err)
	}
	return &Reader{file: file, raw: raw}, nil
}

// Read reads what there is; io.EOF once writers have been there and are gone.
func (r *Reader) Read(p []byte) (n int, err error) {
	waitErr := r.raw.Read(func(fd uintptr) bool {
		n, err = readFIFO(int(fd), p)
		return err != unix.EAGAIN
	})
	if waitErr != nil {
		return 0, waitErr
	}
	return max(n, 0), err
}

// SetReadDeadline bounds a Read, also one that waits.
func (r *Reader) SetReadDeadline(t time.Time) error { return r.file.SetReadDeadline(t) }

// Close closes the reading end.
func (r *Reader) Close() error { return r.file.Close() }

// readFIFO tells the two meanings of "0 bytes" apart: poll reports a hang-up only
// if a writer has been there since we opened (pipe_poll in fs/pipe.c).
func readFIFO(fd int, p []byte) (int, error) {
	for {
		n, err := unix.Read(fd, p)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil || n > 0:
			return n, err
		case hungUp(fd):
			return 0, io.EOF
		}
		return 0, unix.EAGAIN
	}
}

func hungUp(fd int) bool {
	state := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Ppoll(state, &unix.Timespec{}, nil)
	return err == nil && n == 1 && state[0].Revents&unix.POLLHUP != 0
}
