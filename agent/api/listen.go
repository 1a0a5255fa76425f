package api

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// socketMode lets everybody connect: the role is decided by the peer's
// credentials, and mapped tenants are in no common group.
const socketMode = 0o666

// Listen takes the socket at path. A file left behind by a dead agent is
// replaced; a socket that somebody serves, or a file that is no socket, is a
// conflict and stays as it is.
func Listen(path string) (*net.UnixListener, error) {
	what := "listen on " + path
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fault.Wrap(fault.Internal, what, err)
	}
	unlock, err := lockSocket(path)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, what, err)
	}
	defer unlock()
	if err := removeStale(what, path); err != nil {
		return nil, err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fault.Wrap(fault.Internal, what, err)
	}
	if err := os.Chmod(path, socketMode); err != nil {
		return nil, errors.Join(fault.Wrap(fault.Internal, what, err), listener.Close())
	}
	return listener, nil
}

// lockSocket serialises two agents that find the same stale file.
func lockSocket(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", file.Name(), err), file.Close())
	}
	return func() { file.Close() }, nil // closing gives the lock back; nothing was written
}

func removeStale(what, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.Wrap(fault.Internal, what, err)
	}
	if info.Mode()&os.ModeSocket == 0 {
		return fault.New(fault.Conflict, what, "a file that is no socket is there").WithHint("mv %s %s.old", path, path)
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		defer conn.Close()
		return taken(what, conn)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fault.New(fault.Conflict, what, "somebody may be listening: %w", err)
	}
	return fault.Wrap(fault.Internal, what, os.Remove(path))
}

func taken(what string, conn net.Conn) error {
	who, err := peerOf(conn)
	if err != nil {
		return fault.New(fault.Conflict, what, "another agent is listening")
	}
	return fault.New(fault.Conflict, what, "another agent (pid %d) is listening", who.pid).
		WithHint("stop it, or give this one its own --root")
}
