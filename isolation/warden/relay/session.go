package relay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/gpuhost/gpuhost/agent/frame"
	"github.com/gpuhost/gpuhost/isolation/warden/fifo"
)

// session is one exec process's folder with everything in it open.
type session struct {
	options  Options
	parent   *os.Root // holds the folder
	name     string   // of the folder in parent
	listener *listener
	outputs  []output
	events   *os.File // inotify
}

// output is one stream of the process.
type output struct {
	kind frame.Type
	fifo *fifo.Reader
}

func open(o Options) (*session, error) {
	parent, err := os.OpenRoot(filepath.Dir(o.Dir))
	if err != nil {
		return nil, fmt.Errorf("open sessions folder: %w", err)
	}
	s := &session{options: o, parent: parent, name: filepath.Base(o.Dir)}
	if err := parent.Mkdir(s.name, 0o700); err != nil {
		parent.Close()
		return nil, fmt.Errorf("make session folder: %w", err)
	}
	if err := s.fill(); err != nil {
		s.remove()
		return nil, err
	}
	return s, nil
}

// fill makes and opens what belongs into the folder.
func (s *session) fill() error {
	if err := s.addOutput(fifo.Stdout, frame.Stdout); err != nil {
		return err
	}
	if !s.options.TTY {
		if err := s.addOutput(fifo.Stderr, frame.Stderr); err != nil {
			return err
		}
	}
	if s.options.Stdin {
		if err := fifo.Make(filepath.Join(s.options.Dir, fifo.Stdin)); err != nil {
			return err
		}
	}
	// After our own opening of the outputs, so that the next is the process's.
	fd, err := fifo.WatchAll(s.options.Dir)
	if err != nil {
		return err
	}
	s.events = os.NewFile(uintptr(fd), "inotify")
	if s.listener, err = listen(filepath.Join(s.options.Dir, Socket)); err != nil {
		return err
	}
	return s.give()
}

func (s *session) addOutput(name string, kind frame.Type) error {
	path := filepath.Join(s.options.Dir, name)
	if err := fifo.Make(path); err != nil {
		return err
	}
	r, err := fifo.OpenReader(path)
	if err != nil {
		return err
	}
	s.outputs = append(s.outputs, output{kind, r})
	return nil
}

// give makes the folder the user's that the relay will be. Outputs, being open
// already, and the socket stay root's: only root connects.
func (s *session) give() error {
	if os.Geteuid() != 0 {
		return nil
	}
	names := []string{s.name}
	if s.options.Stdin {
		names = append(names, filepath.Join(s.name, fifo.Stdin))
	}
	for _, name := range names {
		if err := s.parent.Lchown(name, s.options.UID, s.options.GID); err != nil {
			return fmt.Errorf("give session to uid %d: %w", s.options.UID, err)
		}
	}
	return nil
}

// remove takes the folder away with all that is in it. A parent that does not
// let this user leaves an empty folder for the agent's next sweep.
func (s *session) remove() {
	_ = s.parent.RemoveAll(s.name)
	s.parent.Close()
}

// pumpAll moves all outputs; the channel gives one answer, at the end of the last.
func (s *session) pumpAll(g *gate) <-chan error {
	ended := make(chan error, len(s.outputs))
	for _, out := range s.outputs {
		go func() { ended <- out.pump(g) }()
	}
	finished := make(chan error, 1)
	go func() {
		var all error
		for range s.outputs {
			all = errors.Join(all, <-ended)
		}
		finished <- all
	}()
	return finished
}

// watchFolder tells that the process has opened its FIFOs, and that the owner
// has taken them away.
func (s *session) watchFolder() (started, removed <-chan struct{}) {
	first, gone := make(chan struct{}), make(chan struct{})
	go func() {
		raw, err := s.events.SyscallConn()
		if err != nil {
			return
		}
		var seen fifo.Seen
		for !seen.Removed {
			opened := seen.Opened
			err := raw.Read(func(fd uintptr) bool {
				now := fifo.Read(int(fd))
				seen.Opened = seen.Opened || now.Opened
				seen.Removed = now.Removed
				return seen.Removed || seen.Opened != opened
			})
			if err != nil {
				return
			}
			if seen.Opened && !opened {
				close(first)
			}
		}
		close(gone)
	}()
	return first, gone
}
