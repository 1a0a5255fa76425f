package reconcile

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// work does one run of a lane. A positive again asks for another run after that
// time even if nothing triggers it.
type work func(ctx context.Context, key string) (again time.Duration, err error)

// Backoff bounds of a lane whose run failed.
const (
	backoffFirst = 500 * time.Millisecond
	backoffLast  = 30 * time.Second
)

// lanes runs work by key: never two runs of one key at a time, triggers that
// arrive during a run coalesce into one more run, a failed run is tried again
// with backoff. Different keys run side by side.
type lanes struct {
	work work
	log  *slog.Logger

	mu    sync.Mutex
	lane  map[string]*lane
	asked uint64          // counts what is asked of all lanes
	ctx   context.Context // set by run; nil before and a cancelled one after
	group sync.WaitGroup
}

// lane is the state of one key. All fields but lock are guarded by lanes.mu.
type lane struct {
	lock    chan struct{} // a token: whoever holds it runs
	pending bool
	users   int  // who serves it, runs in it or waits to: it is dropped only without any
	active  bool // a goroutine is serving this lane
	gone    bool // to be dropped at rest
	timer   *time.Timer
	failing int
	asked   uint64 // when something was asked of it last
	rested  uint64 // what it was asked when it came to rest; 0 while it is not at rest
}

func newLanes(log *slog.Logger, w work) *lanes {
	return &lanes{work: w, log: log, lane: make(map[string]*lane)}
}

// run lets lanes start working and returns when ctx is done and all have come
// to rest.
func (l *lanes) run(ctx context.Context) {
	l.mu.Lock()
	l.ctx = ctx
	for key, ln := range l.lane {
		l.wakeLocked(key, ln)
	}
	l.mu.Unlock()
	<-ctx.Done()
	l.stopTimers()
	l.group.Wait()
}

// stopTimers comes once ctx is done. Whoever saw it hold until then has added its
// lane to the group, under the same lock.
func (l *lanes) stopTimers() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, ln := range l.lane {
		if ln.timer != nil {
			ln.timer.Stop()
		}
	}
}

// trigger asks for a run of key as soon as possible. It never blocks.
func (l *lanes) trigger(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ln := l.getLocked(key)
	ln.pending = true
	l.askLocked(ln)
	l.wakeLocked(key, ln)
}

func (l *lanes) getLocked(key string) *lane {
	ln := l.lane[key]
	if ln == nil {
		ln = &lane{lock: make(chan struct{}, 1)}
		l.askLocked(ln)
		l.lane[key] = ln
	}
	return ln
}

// enter gives the lane of key to a user, who leaves it.
func (l *lanes) enter(key string) *lane {
	l.mu.Lock()
	defer l.mu.Unlock()
	ln := l.getLocked(key)
	ln.users++
	return ln
}

func (l *lanes) leave(key string, ln *lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leaveLocked(key, ln)
}

// leaveLocked drops a lane that is to be forgotten with its last user. Before
// that, a second lane of the same key could run beside it.
func (l *lanes) leaveLocked(key string, ln *lane) {
	ln.users--
	if ln.gone && !ln.pending && ln.users == 0 {
		delete(l.lane, key)
	}
}

func (l *lanes) wakeLocked(key string, ln *lane) {
	if !ln.pending || ln.active || l.ctx == nil || l.ctx.Err() != nil {
		return
	}
	ln.active = true
	ln.users++
	l.group.Add(1)
	go l.serve(l.ctx, key, ln)
}

// serve runs a lane until nothing is pending for it.
func (l *lanes) serve(ctx context.Context, key string, ln *lane) {
	defer l.group.Done()
	for l.take(ctx, key, ln) {
		again, err := l.once(ctx, key, ln)
		l.settle(ctx, key, ln, again, err)
	}
}

// take claims the pending trigger; false ends the serving goroutine.
func (l *lanes) take(ctx context.Context, key string, ln *lane) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !ln.pending || ctx.Err() != nil {
		ln.active = false
		l.leaveLocked(key, ln)
		return false
	}
	ln.pending, ln.gone = false, false
	if ln.timer != nil {
		ln.timer.Stop()
		ln.timer = nil
	}
	return true
}

// settle schedules the next run: after a backoff when the run failed, after
// again when it asked for it.
func (l *lanes) settle(ctx context.Context, key string, ln *lane, again time.Duration, err error) {
	if ctx.Err() != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		ln.failing = 0
	} else {
		ln.failing++
		again = backoff(ln.failing)
		l.log.Warn("lane run ended with an error", "lane", key, "error", err, "kind", string(fault.KindOf(err)), "again", again)
	}
	if again <= 0 {
		return
	}
	ln.timer = time.AfterFunc(again, func() { l.trigger(key) })
}

// backoff is the pause after the n-th failure in a row: doubling, bounded.
func backoff(n int) time.Duration {
	pause := backoffFirst
	for range n - 1 {
		pause *= 2
		if pause >= backoffLast {
			return backoffLast
		}
	}
	return pause
}

// do runs key's work now, in the caller's goroutine, after any run under way. It
// is how one lane makes sure of another.
func (l *lanes) do(ctx context.Context, key string) error {
	ln := l.enter(key)
	defer l.leave(key, ln)
	_, err := l.once(ctx, key, ln)
	return err
}

// with runs f while no run of key is under way.
func (l *lanes) with(ctx context.Context, key string, f func(context.Context) error) error {
	ln := l.enter(key)
	defer l.leave(key, ln)
	return ln.hold(ctx, func() error { return f(ctx) })
}

// within is with, but gives up when the lane is at work for longer than patience.
func (l *lanes) within(ctx context.Context, key string, patience time.Duration, f func(context.Context) error) error {
	ln := l.enter(key)
	defer l.leave(key, ln)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case ln.lock <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return errBusy
	}
	defer func() { <-ln.lock }()
	return f(ctx)
}

// try is with, but gives up at once when a run of key is under way or waiting.
func (l *lanes) try(ctx context.Context, key string, f func(context.Context) error) error {
	ln := l.enter(key)
	defer l.leave(key, ln)
	if l.waiting(ln) {
		return errBusy
	}
	select {
	case ln.lock <- struct{}{}:
		defer func() { <-ln.lock }()
		return f(ctx)
	default:
		return errBusy
	}
}

// waiting says whether a run of a lane was asked for that has not begun.
func (l *lanes) waiting(ln *lane) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return ln.pending
}

func (l *lanes) once(ctx context.Context, key string, ln *lane) (again time.Duration, err error) {
	err = ln.hold(ctx, func() (err error) {
		again, err = l.work(ctx, key)
		return err
	})
	return again, err
}

// hold runs f with the lane's token, or gives up when ctx ends first.
func (ln *lane) hold(ctx context.Context, f func() error) error {
	select {
	case ln.lock <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-ln.lock }()
	return f()
}

// forget drops a lane whose object is gone, once nothing is pending for it and
// nobody uses it. Its own run calls it; a later run takes the word back.
func (l *lanes) forget(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.getLocked(key).gone = true
}

// spawn runs f beside the lanes, until it ends or they do; false when they do not
// run.
func (l *lanes) spawn(f func(context.Context)) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx == nil || l.ctx.Err() != nil {
		return false
	}
	ctx := l.ctx
	l.group.Go(func() { f(ctx) })
	return true
}
