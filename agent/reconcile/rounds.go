package reconcile

import (
	"context"
	"errors"
	"hash/fnv"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// The periodic audit. Each instance has a moment of its own in the interval, drawn
// from its uid: audits are spread, because a burst is felt by tenants, and no
// instance waits longer than the interval however others come and go.

// Audit tries that came to nothing are made again after these pauses.
const (
	auditBusy    = 100 * time.Millisecond // the instance's lane was at work
	auditUnknown = 2 * time.Second        // its network's lane was
	auditFailed  = 5 * time.Second        // the controls could not be read
	auditLook    = time.Second            // how often new instances are looked for
)

// auditTask is the audit of one instance among the problems.
const auditTask = "audit/"

// AuditRound tells of one audit: the controls read, or why none could be. It may be
// called for several instances at once.
type AuditRound func(o *spec.Object, controls []spec.Control, err error)

// AuditRounds audits every running instance once in each interval until ctx ends;
// the interval may become another one meanwhile.
// It begins with all of them at once: what an agent that is gone had proved, its
// successor proves again.
func (l *Loop) AuditRounds(ctx context.Context, every func() time.Duration, read AuditRead, tell AuditRound) error {
	r := &rounds{
		loop: l, read: read, tell: tell, interval: every(),
		slots: make(chan struct{}, runtime.GOMAXPROCS(0)), ended: make(chan struct{}, 1),
		next: make(map[spec.UID]time.Time), running: make(map[spec.UID]bool), unknown: make(map[spec.UID]bool),
	}
	var group sync.WaitGroup
	defer group.Wait()
	first := l.Now()
	for {
		for _, o := range r.begin(first, every()) {
			group.Go(func() { r.audit(ctx, o) })
		}
		first = time.Time{}
		if !r.pause(ctx) {
			return nil
		}
	}
}

// rounds are the audits of all instances. One that waits, for a processor or for
// its network's lane, holds no other.
type rounds struct {
	loop  *Loop
	read  AuditRead
	tell  AuditRound
	slots chan struct{} // whoever reads has one; as many as there are processors
	ended chan struct{} // holds a word when an audit ended

	mu       sync.Mutex // guards what follows
	interval time.Duration
	next     map[spec.UID]time.Time
	running  map[spec.UID]bool
	unknown  map[spec.UID]bool // told that its network's controls are
}

// begin gives the instances whose moment has come and that are not being audited.
func (r *rounds) begin(first time.Time, interval time.Duration) []*spec.Object {
	r.mu.Lock()
	defer r.mu.Unlock()
	if interval != r.interval {
		r.interval = interval
		clear(r.next) // each has another moment now
	}
	due, err := r.loop.due(r.next, first, interval)
	if err != nil {
		r.loop.Log.Error("list instances to audit", "error", err)
	}
	due = slices.DeleteFunc(due, func(o *spec.Object) bool { return r.running[o.Metadata.UID] })
	for _, o := range due {
		r.running[o.Metadata.UID] = true
	}
	return due
}

func (r *rounds) audit(ctx context.Context, o *spec.Object) {
	uid := o.Metadata.UID
	controls, err := r.look(ctx, o)
	if ctx.Err() != nil {
		return
	}
	if !errors.Is(err, errBusy) {
		r.tell(o, controls, r.news(uid, err))
		err = unproved(controls, err)
		r.loop.noteAudit(uid, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.running, uid)
	r.next[uid] = nextTry(uid, r.loop.Now(), r.interval, err)
	select {
	case r.ended <- struct{}{}:
	default:
	}
}

// unproved is why an audit says less than it should: it could not be made, or one of
// its controls could not be looked at.
func unproved(controls []spec.Control, err error) error {
	i := slices.IndexFunc(controls, func(c spec.Control) bool { return c.Unknown })
	if err != nil || i < 0 {
		return err
	}
	return fault.New(fault.Temporary, "audit", "control %s: %s", controls[i].ID, controls[i].Found).WithHint("gpuhost audit")
}

// noteAudit tells of an instance that is not proved. One that ended or was removed
// meanwhile has nothing to prove, and rules that are worked at are no trouble.
func (l *Loop) noteAudit(uid spec.UID, err error) {
	if fault.Is(err, fault.Conflict) || fault.Is(err, fault.NotFound) || errors.Is(err, errUnknown) {
		err = nil
	}
	l.NoteProblem(auditTask+string(uid), err)
}

// news is an audit's error without what was told already: that not all is known.
func (r *rounds) news(uid spec.UID, err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch known := !errors.Is(err, errUnknown); {
	case known:
		delete(r.unknown, uid)
	case r.unknown[uid]:
		return nil
	default:
		r.unknown[uid] = true
	}
	return err
}

// look has a processor until the task's own controls are read: what comes then may
// wait for others.
func (r *rounds) look(ctx context.Context, o *spec.Object) ([]spec.Control, error) {
	select {
	case r.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	release := sync.OnceFunc(func() { <-r.slots })
	defer release()
	return r.loop.auditAtRest(ctx, o, func(ctx context.Context, a Audited) ([]spec.Control, error) {
		defer release()
		return r.read(ctx, a)
	})
}

// pause waits for the next moment, and says whether ctx still holds.
func (r *rounds) pause(ctx context.Context) bool {
	timer := time.NewTimer(r.untilNext())
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-r.ended:
	case <-timer.C:
	}
	return true
}

func (r *rounds) untilNext() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	wait, now := auditLook, r.loop.Now()
	for uid, at := range r.next {
		if !r.running[uid] {
			wait = min(wait, at.Sub(now))
		}
	}
	return max(wait, 0)
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
			l.noteAudit(uid, nil)
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

func nextTry(uid spec.UID, now time.Time, interval time.Duration, err error) time.Time {
	switch {
	case errors.Is(err, errBusy):
		return now.Add(auditBusy)
	case errors.Is(err, errUnknown):
		return now.Add(min(auditUnknown, interval))
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
