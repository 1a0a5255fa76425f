package nvml_test

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// pidfd gives a file that is readable once the process has ended.
func pidfd(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

func readable(f *os.File, within time.Duration) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}, int(within.Milliseconds()))
	return err == nil && n == 1
}
