package relay

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/frame"
	"github.com/gpuhost/gpuhost/isolation/warden/fifo"
)

// listener is a listening unix socket in the runtime's poller. Package net would
// do, and bring its resolver into fifty log writers.
type listener struct{ file *os.File }

func listen(path string) (*listener, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	l := &listener{os.NewFile(uintptr(fd), path)}
	if err := bind(fd, path); err != nil {
		l.file.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

func bind(fd int, path string) error {
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return err
	}
	if err := unix.Chmod(path, 0o600); err != nil {
		return err
	}
	return unix.Listen(fd, 1)
}

// accept waits for a connection.
func (l *listener) accept() (*os.File, error) {
	raw, err := l.file.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("accept: %w", err)
	}
	conn := -1
	waitErr := raw.Read(func(fd uintptr) bool {
		conn, _, err = unix.Accept4(int(fd), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		return err != unix.EAGAIN && err != unix.EINTR && err != unix.ECONNABORTED
	})
	if waitErr != nil {
		err = waitErr
	}
	if err != nil {
		return nil, fmt.Errorf("accept: %w", err)
	}
	return os.NewFile(uintptr(conn), "controller"), nil
}

func (l *listener) close() { l.file.Close() }

// control takes the first controller and no other, and passes its input on.
// When it is gone the process sees the end of its input.
func (s *session) control(g *gate) {
	conn, err := s.listener.accept()
	s.listener.close()
	if err != nil {
		return
	}
	if !g.open(conn) {
		conn.Close() // too late: output is thrown away already
		return
	}
	in := s.openInput()
	defer in.close()
	frames := frame.NewReader(conn)
	for {
		f, err := frames.Next()
		if err != nil {
			return
		}
		switch f.Type {
		case frame.Stdin:
			in.write(f.Payload)
		case frame.CloseStdin:
			in.close()
		}
		// Resize is the agent's own: containerd sets the terminal's size.
	}
}

// input is the process's stdin; its zero value swallows everything.
type input struct {
	pipe io.WriteCloser
}

// openInput waits until the process has opened its side: what is written before
// would be lost if the controller closed first. A controller's bytes wait in its
// socket meanwhile.
func (s *session) openInput() *input {
	if !s.options.Stdin {
		return &input{}
	}
	pipe, err := s.parent.OpenFile(filepath.Join(s.name, fifo.Stdin), os.O_WRONLY, 0)
	if err != nil {
		return &input{}
	}
	return &input{pipe}
}

// write gives p to the process; one that has closed its input gets no more.
func (in *input) write(p []byte) {
	if in.pipe == nil {
		return
	}
	if _, err := in.pipe.Write(p); err != nil {
		in.close()
	}
}

func (in *input) close() {
	if in.pipe != nil {
		in.pipe.Close()
		in.pipe = nil
	}
}
