package attack

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Case is one thing a tenant tries.
type Case struct {
	Name string
	// Try does it; nil means that it succeeded.
	Try func() error
	// Want is what the kernel answers: an errno by name, or "ok" for the ordinary
	// work that shows that the answers are not those of a broken instance.
	Want string
}

// Absent says whether the answer shows nothing, because the case is about a
// file of the host, named last, and this host has none.
func (c Case) Absent(answer string) bool {
	path := c.Name[strings.LastIndexByte(c.Name, ' ')+1:]
	if answer != "ENOENT" || !strings.HasPrefix(path, "/") {
		return false
	}
	_, err := os.Lstat(path)
	return errors.Is(err, os.ErrNotExist)
}

// OK is [Case.Want] and the answer of a try that succeeds.
const OK = "ok"

// Cases is the table, in a fixed order. Of what it needs to know of the host the
// environment tells it: [HostPIDs], [HostSocket].
func Cases() []Case {
	return slices.Concat(work(), devices(), namespaces(), mounts(), calls(), sockets(), kernelFiles(), processes(), exhaustion())
}

// What the environment of a probe tells it, as a tenant might learn it.
const (
	HostPIDs   = "ATTACK_HOST_PIDS"   // numbers of host processes, separated by commas
	HostSocket = "ATTACK_HOST_SOCKET" // an abstract UNIX socket that listens on the host
)

// Answer names what came of a try.
func Answer(err error) string {
	var errno unix.Errno
	switch {
	case err == nil:
		return OK
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

// work is what every tenant may do.
func work() []Case {
	return []Case{
		{"open /dev/null", openFor("/dev/null", unix.O_RDWR), OK},
		{"open the granted GPU", openFor("/dev/nvidia0", unix.O_RDWR), "ENXIO"}, // no driver is behind it
		{"write a file", openFor("/root/file", unix.O_RDWR|unix.O_CREAT), OK},
		{"make a socket", socket(unix.AF_INET, unix.SOCK_STREAM, 0), OK},
		{"find the driver's library", openFor("/usr/local/nvidia/lib64/libcuda.so.1", unix.O_RDONLY), OK},
		{"see itself", openFor("/proc/self/status", unix.O_RDONLY), OK},
	}
}

func openFor(path string, flags int) func() error {
	return func() error {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0o600)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
}

// call makes a system call with arguments that do nothing should it be let
// through: null pointers and numbers that are none.
func call(number uintptr, args ...uintptr) func() error {
	return func() error {
		var a [6]uintptr
		copy(a[:], args)
		_, _, errno := unix.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5])
		if errno != 0 {
			return errno
		}
		return nil
	}
}

func hostPIDs() (pids []int) {
	for text := range strings.SplitSeq(os.Getenv(HostPIDs), ",") {
		if pid, err := strconv.Atoi(text); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}
