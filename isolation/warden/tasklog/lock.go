package tasklog

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/isolation/warden/fifo"
)

// LockName is the file in the log folder that a running log warden holds locked.
const LockName = "lock"

// ErrLocked says that another warden already reads these pipes.
var ErrLocked = errors.New("another log writer runs")

// takeLock takes the record lock, which names its holder to whoever asks the
// kernel and vanishes with the process. It is held until the process ends.
func takeLock(root *os.Root) (*os.File, error) {
	file, err := root.OpenFile(LockName, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	err = unix.FcntlFlock(file.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		file.Close()
		return nil, ErrLocked
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("lock %s: %w", LockName, err)
	}
	return file, nil
}

// Holder says which process runs as the log writer of the folder dir, 0 for
// none, and which pipes it reads. It opens the file in dir for reading only:
// closing it does not disturb the holder's lock, which is another process's.
func Holder(dir string) (pid int, pipes Pipes, err error) {
	file, err := os.Open(dir + "/" + LockName)
	if errors.Is(err, os.ErrNotExist) {
		return 0, "", nil
	}
	if err != nil {
		return 0, "", fmt.Errorf("open lock: %w", err)
	}
	defer file.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(file.Fd(), unix.F_GETLK, &lock); err != nil {
		return 0, "", fmt.Errorf("ask for lock: %w", err)
	}
	if lock.Type == unix.F_UNLCK {
		return 0, "", nil
	}
	text, err := io.ReadAll(io.LimitReader(file, 256))
	if err != nil {
		return 0, "", fmt.Errorf("read lock: %w", err)
	}
	return int(lock.Pid), Pipes(text), nil
}

// Pipes identifies the pair of FIFOs that a log writer reads, so that a writer of
// an earlier pair is not taken for the present one's.
type Pipes string

// Identify names the FIFOs in the folder dir as they are now.
func Identify(dir string) (Pipes, error) {
	var text string
	for _, name := range []string{fifo.Stdout, fifo.Stderr} {
		var st unix.Stat_t
		if err := unix.Lstat(dir+"/"+name, &st); err != nil {
			return "", fmt.Errorf("look at %s pipe: %w", name, err)
		}
		text += strconv.FormatUint(uint64(st.Dev), 16) + ":" + strconv.FormatUint(st.Ino, 16) + "\n"
	}
	return Pipes(text), nil
}

func record(lock *os.File, pipes Pipes) error {
	if err := lock.Truncate(0); err != nil {
		return fmt.Errorf("clear lock: %w", err)
	}
	if _, err := lock.WriteAt([]byte(pipes), 0); err != nil {
		return fmt.Errorf("write lock: %w", err)
	}
	return nil
}
