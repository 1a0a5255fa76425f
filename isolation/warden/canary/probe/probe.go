// Package probe is `warden canary`: it asks the kernel, from below a tenant's
// device program, what that lets through, by trying.
//
// It stays outside itself and sends a child into the cgroup of each visit. The child
// is made there by clone3 (CLONE_INTO_CGROUP): to move a process from one cgroup to
// another would hold up every fork and exit of the host while the kernel waits for
// those under way (cgroup_threadgroup_rwsem). It shares this process's memory, and
// runs no Go: it is a list of system calls, see [script]. So it costs a tenth of a
// millisecond, a process of its own ten.
//
// A node is opened and closed at once; nothing is read, written or configured.
// Neighbours: isolation/warden/canary is the wire, isolation/audit judges.
package probe

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/isolation/warden/canary"
)

// Run goes where it is told, one visit after the other, until in, a pipe, ends.
func Run(in *os.File, out io.Writer) error {
	runtime.LockOSThread() // a child dies with the thread that made it
	// The children become the tenant's user and have this memory.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid tracing: %w", err)
	}
	visits := bufio.NewReader(in)
	for {
		v, err := canary.ReadVisit(visits)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		tried, err := visit(v, int(in.Fd()))
		if err == errAlone {
			return err
		}
		if err := canary.WriteAnswer(out, tried, err); err != nil {
			return err
		}
	}
}

// visit sends one child and gives the errno of every try.
func visit(v canary.Visit, pipe int) ([]unix.Errno, error) {
	if len(v.Tenant) > 0 && v.UID <= 0 {
		return nil, fmt.Errorf("user %d is no tenant", v.UID)
	}
	dir, err := unix.Open(v.Cgroup, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open cgroup: %w", err)
	}
	defer unix.Close(dir)
	s := newScript(v.Tries)
	if err := s.run(dir, pipe); err != nil {
		return nil, err
	}
	return s.tried()
}
