// Package tasklog is `warden log`: it reads the two FIFOs of a task for as long
// as the instance lives and keeps its log.
//
// It is the only reader of these pipes, so it must neither die with the agent
// nor make the tenant wait for the host: a full disk costs lines, which are counted.
// What a tenant writes beyond its budget it waits for itself. The writer ends on SIGTERM or when the FIFOs are removed, after what the pipes still hold
// is written.
//
// Neighbours: isolation/warden/launch starts it, logfile writes and reads.
package tasklog

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/isolation/warden/confine"
	"github.com/gpuhost/gpuhost/isolation/warden/fifo"
	"github.com/gpuhost/gpuhost/isolation/warden/logfile"
)

// Options of a log writer.
type Options struct {
	Pipes    string // folder of the FIFOs, which exist
	Logs     string // folder of the log, which exists; it becomes UID's
	UID, GID int    // whom to become; 0 stays root, without capabilities
}

// Run keeps the log. It calls ready once both FIFOs are open and it has confined
// itself; a writer that finds another at work returns [ErrLocked] before that.
func Run(o Options, ready func()) error {
	w, err := prepare(o)
	if err != nil {
		return err
	}
	if err := confine.Process(confine.Options{UID: o.UID, GID: o.GID, Calls: confine.Pipes(), Folder: o.Logs}); err != nil {
		return err
	}
	ready()
	w.run()
	return nil
}

// warden is one log writer with everything open.
type warden struct {
	lock    *os.File
	removal int // inotify
	stop    int // reading end of a pipe that a signal writes to
	streams [2]stream
	writer  *logfile.Writer
	clock   func() time.Time
	budget  *budget
	scratch [32 << 10]byte
}

// stream is one FIFO and what its last line lacks.
type stream struct {
	fd int
	splitter
}

func prepare(o Options) (*warden, error) {
	root, err := os.OpenRoot(o.Logs)
	if err != nil {
		return nil, fmt.Errorf("open log folder: %w", err)
	}
	w := &warden{clock: time.Now, budget: newBudget(time.Now())}
	if w.lock, err = takeLock(root); err != nil {
		return nil, err
	}
	if w.removal, err = fifo.WatchRemoval(o.Pipes); err != nil {
		return nil, err
	}
	pipes, err := Identify(o.Pipes)
	if err != nil {
		return nil, err
	}
	for i, name := range []string{fifo.Stdout, fifo.Stderr} {
		fd, err := fifo.OpenBoth(o.Pipes + "/" + name)
		if err != nil {
			return nil, err
		}
		w.streams[i] = stream{fd, splitter{stream: logfile.Stream(name)}}
	}
	if err := give(root, o); err != nil {
		return nil, err
	}
	if w.writer, err = logfile.NewWriter(root); err != nil {
		return nil, err
	}
	if w.stop, err = stopPipe(); err != nil {
		return nil, err
	}
	return w, record(w.lock, pipes)
}

// give makes the log folder and what lies in it the user's that the warden will
// be.
func give(root *os.Root, o Options) error {
	if os.Geteuid() != 0 {
		return nil
	}
	dir, err := root.Open(".")
	if err != nil {
		return fmt.Errorf("open log folder: %w", err)
	}
	defer dir.Close()
	if err := dir.Chmod(0o700); err != nil {
		return fmt.Errorf("close log folder to others: %w", err)
	}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("list log folder: %w", err)
	}
	for _, name := range append(names, ".") {
		if err := root.Lchown(name, o.UID, o.GID); err != nil {
			return fmt.Errorf("give log folder to uid %d: %w", o.UID, err)
		}
	}
	return nil
}

// stopPipe turns SIGTERM into something to poll for. SIGHUP and SIGPIPE mean
// nothing to a process that has outlived its starter.
func stopPipe() (int, error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return -1, fmt.Errorf("make stop pipe: %w", err)
	}
	signal.Ignore(unix.SIGHUP, unix.SIGPIPE)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)
	go func() {
		<-signals
		unix.Close(ends[1])
	}()
	return ends[0], nil
}

// run reads until told to stop, then what is left.
func (w *warden) run() {
	q := newQueue(w.writer)
	defer q.close()
	state := []unix.PollFd{
		{Fd: int32(w.streams[0].fd), Events: unix.POLLIN},
		{Fd: int32(w.streams[1].fd), Events: unix.POLLIN},
		{Fd: int32(w.removal), Events: unix.POLLIN},
		{Fd: int32(w.stop), Events: unix.POLLIN},
	}
	for {
		if err := w.await(state); err != nil {
			return
		}
		for i := range w.streams {
			if state[i].Revents != 0 {
				w.read(q, &w.streams[i])
			}
		}
		stopped := state[3].Revents != 0
		if stopped || (state[2].Revents != 0 && fifo.Read(w.removal).Removed) {
			w.drain(q)
			return
		}
	}
}

// await polls. While the budget is used up it looks away from the task's pipes, and
// comes back when there is some again.
func (w *warden) await(state []unix.PollFd) error {
	pause := w.budget.pause(w.clock())
	var timeout *unix.Timespec
	for i := range w.streams {
		state[i].Fd = int32(w.streams[i].fd)
	}
	if pause > 0 {
		spec := unix.NsecToTimespec(pause.Nanoseconds())
		timeout = &spec
		state[0].Fd, state[1].Fd = -1, -1 // poll leaves these out, and says that nothing happened
	}
	_, err := unix.Ppoll(state, timeout, nil)
	if errors.Is(err, unix.EINTR) {
		return nil
	}
	return err
}

// drainLimit bounds what a task that still writes can hold up an end with: the
// most that a pipe of an unprivileged process holds.
const drainLimit = 1 << 20

func (w *warden) drain(q *queue) {
	for i := range w.streams {
		s := &w.streams[i]
		for total := 0; total < drainLimit; {
			n := w.read(q, s)
			if n == 0 {
				break
			}
			total += n
		}
		b := q.get()
		b.records, b.lines = s.end(b.records, w.clock())
		q.put(b)
	}
}

// read passes on what one read gives and says how many bytes it was.
func (w *warden) read(q *queue, s *stream) int {
	n, err := unix.Read(s.fd, w.scratch[:])
	if err != nil || n <= 0 {
		return 0
	}
	now := w.clock()
	for rest := w.scratch[:n]; len(rest) > 0; {
		b := q.get()
		b.records, b.lines, rest = s.feed(b.records, now, rest)
		w.budget.spend(len(b.records))
		q.put(b)
	}
	return n
}
