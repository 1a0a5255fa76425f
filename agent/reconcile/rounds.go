package reconcile

import (
	"context"
	"errors"
	"hash/fnv"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gpuhost/gpuhost/agent/spec"
)

// The periodic audit. Each instance has a moment of its own in the interval, drawn
// from its uid: audits are spread, because a burst is felt by tenants, and no
// instance waits longer than the interval however others come and go.

// Audit tries that came to nothing are made again after these pauses.
const (
	auditBusy   = 100 * time.Millisecond // the lane was at work
	auditFailed = 5 * time.Second        // the controls could not be read
	auditLook   = time.Second            // how often new instances are looked for
)

// AuditRound tells of one audit: the controls read, or why none could be. It may be
// called for several instances at once.
type AuditRound func(o *spec.Object, controls []spec.Control, err error)

// AuditRounds audits every running instance once in each interval until ctx ends;
// the interval may become another one meanwhile.
// It begins with all of them at once: what an agent that is gone had proved, its
// successor proves again.
func (l *Loop) AuditRounds(ctx context.Context, every func() time.Duration, read AuditRead, tell AuditRound) error {
	next := make(map[spec.UID]time.Time)
	first, interval := l.Now(), every()
	for {
		if now := every(); now != interval {
			interval = now
			clear(next) // each has another moment now
		}
		due, err := l.due(next, first, interval)
		if err != nil {
			l.Log.Error("list instances to audit", "error", err)
		}
		l.auditAll(ctx, due, read, tell, func(uid spec.UID, err error) { next[uid] = nextTry(uid, l.Now(), interval, err) })
		first = time.Time{}
		if !pause(ctx, l.untilNext(next)) {
			return nil
		}
	}
}

// due are the instances whose moment has come. Those that are seen for the first
// time have theirs at first, or where that is zero at their own moment: their
// lanes have audited them before they started.
func (l *Loop) due(next map[spec.UID]time.Time, first time.Time, interval time.Duration) ([]*spec.Object, error) {
	w, err := l.world()
	if err != nil {
		return nil, err
	}
	now := l.Now()
	stored := make(map[spec.UID]bool)
	var due []*spec.Object
	for _, o := range live(w.objects) {
		if !mayRun(o) {
			continue
		}
		uid := o.Metadata.UID
		stored[uid] = true
		at, known := next[uid]
		if !known {
			if at = first; at.IsZero() {
				at = momentOf(uid, now, interval)
			}
			next[uid] = at
		}
		if !at.After(now) {
			due = append(due, o)
		}
	}
	for uid := range next {
		if !stored[uid] {
			delete(next, uid)
		}
	}
	return due, nil
}

// mayRun says whether an instance has a task as far as is known. A failing lane has
// another phase; nothing is known of it before its first look.
func mayRun(o *spec.Object) bool {
	s := o.Status
	return s == nil || s.Phase == spec.PhaseRunning || s.Instance != nil && s.Instance.Pid != 0
}

// auditAll audits instances side by side, as many at once as there are processors.
func (l *Loop) auditAll(ctx context.Context, due []*spec.Object, read AuditRead, tell AuditRound, tried func(spec.UID, error)) {
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	var mu sync.Mutex
	for _, o := range due {
		group.Go(func() error {
			controls, err := l.auditAtRest(ctx, o, read)
			if ctx.Err() != nil {
				return nil
			}
			if !errors.Is(err, errBusy) {
				tell(o, controls, err)
			}
			mu.Lock()
			defer mu.Unlock()
			tried(o.Metadata.UID, err)
			return nil
		})
	}
	_ = group.Wait() // nobody fails
}

func (l *Loop) untilNext(next map[spec.UID]time.Time) time.Duration {
	wait, now := auditLook, l.Now()
	for _, at := range next {
		wait = min(wait, at.Sub(now))
	}
	return max(wait, 0)
}

func nextTry(uid spec.UID, now time.Time, interval time.Duration, err error) time.Time {
	switch {
	case errors.Is(err, errBusy):
		return now.Add(auditBusy)
	case err != nil:
		return now.Add(min(auditFailed, interval))
	default:
		return momentOf(uid, now, interval)
	}
}

// momentOf is the instance's next moment after now.
func momentOf(uid spec.UID, now time.Time, interval time.Duration) time.Time {
	sum := fnv.New64a()
	sum.Write([]byte(uid))
	at := now.Truncate(interval).Add(time.Duration(sum.Sum64() % uint64(interval)))
	for !at.After(now) {
		at = at.Add(interval)
	}
	return at
}
