// Package relay is `warden exec`: it stands between the FIFOs of one exec
// process and the agent, who may die at any moment.
//
// It makes the FIFOs, listens on a socket beside them and speaks agent/frame to
// the one controller that connects: stdin and close-stdin in, stdout and stderr
// out, and end of stream once the process has closed both. How the process
// ended is for the agent to add: containerd knows it. A controller that is gone
// costs its output, never the process: the relay goes on draining.
//
// Its folder is removed when it ends. Neighbours: isolation/warden/launch starts
// it, isolation/runtime hands the FIFOs to containerd.
package relay

import (
	"errors"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/isolation/warden/confine"
)

// Socket is the name of the controller's socket in the session's folder.
const Socket = "socket"

// Options of one session.
type Options struct {
	Dir   string // the session's own folder, made here; its parent must let UID remove it
	Stdin bool   // the process has an input
	TTY   bool   // the process has a terminal: all output comes on stdout
	// Patience is how long the process and the controller have to come. Without
	// the process the session ends; without a controller output is thrown away.
	Patience time.Duration
	UID, GID int // whom to become; 0 stays root, without capabilities
}

// ErrNoProcess ends a session whose process never opened its FIFOs.
var ErrNoProcess = errors.New("the process never came")

// Run serves the session to its end. It calls ready once FIFOs and socket are
// there and it has confined itself.
func Run(o Options, ready func()) error {
	s, err := open(o)
	if err != nil {
		return err
	}
	defer s.remove()
	if err := confine.Process(confine.Options{UID: o.UID, GID: o.GID, Calls: confine.Accept()}); err != nil {
		return err
	}
	ready()
	return s.serve()
}

// serve moves bytes until the process has closed its outputs, the session is
// taken away, or no process came.
func (s *session) serve() error {
	signal.Ignore(unix.SIGHUP, unix.SIGPIPE)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)
	patience := time.NewTimer(s.options.Patience)
	defer patience.Stop()

	g := newGate()
	finished := s.pumpAll(g)
	started, removed := s.watchFolder()
	go s.control(g)
	var taken <-chan struct{} // once the process has ended
	var failed error
	for {
		select {
		case failed = <-finished:
			finished, taken = nil, g.opened
		case <-taken: // all output went somewhere
			g.close()
			return failed
		case <-started:
			started = nil
		case <-patience.C:
			if started != nil {
				return ErrNoProcess
			}
			g.open(nil)
		case <-removed:
			return nil
		case <-signals:
			return nil
		}
	}
}
