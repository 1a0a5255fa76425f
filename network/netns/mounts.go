package netns

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// Mounts tells when something was mounted or unmounted, as every pin is that
// comes or goes: until then, what a pin leads to stays. It may be used by many
// goroutines.
type Mounts struct {
	mu    sync.Mutex
	table int // a descriptor
	count uint64
}

// WatchMounts begins to follow the mounts of this process. The kernel tells each
// open table once of a change: so it is no os.File, which Go's own poller would
// be told about.
func WatchMounts() (*Mounts, error) {
	table, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("watch mounts: %w", err)
	}
	return &Mounts{table: table}, nil
}

// Version is another number when something was mounted or unmounted since it was
// asked for before.
func (m *Mounts) Version() (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	poll := []unix.PollFd{{Fd: int32(m.table), Events: unix.POLLPRI}}
	for {
		_, err := unix.Poll(poll, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("watch mounts: %w", err)
		}
		if poll[0].Revents&(unix.POLLPRI|unix.POLLERR) != 0 {
			m.count++
		}
		return m.count, nil
	}
}

// Close ends the watch.
func (m *Mounts) Close() error { return unix.Close(m.table) }
