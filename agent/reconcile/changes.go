package reconcile

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/agent/store"
)

// verbPull is the verb of changes that no lane does: they end with their agent.
const verbPull = "pull"

// changes follows the changes under way, one an object at most: a newer one
// supersedes the older. Steps and progress live in memory and are told to
// followers at once; the store gets a change when it begins and when it ends.
type changes struct {
	store *store.Store
	now   func() time.Time

	mu    sync.Mutex
	open  map[spec.UID]*store.Change
	waits map[string][]chan struct{} // closed at the next move of a change
	// inForce are the VPCs in which a change of an object without a lane is.
	inForce map[string]map[spec.UID]bool
}

func newChanges(s *store.Store, now func() time.Time) *changes {
	return &changes{
		store: s, now: now, open: make(map[spec.UID]*store.Change), waits: make(map[string][]chan struct{}),
		inForce: make(map[string]map[spec.UID]bool),
	}
}

// interrupted takes over what an earlier agent left open: a lane's change goes on
// as it was and ends with the lane's next run, so that who asked for it hears how
// it ended. What no lane will do again has failed.
func (c *changes) interrupted() error {
	old, err := c.store.Changes(0) // newest first
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ch := range old {
		if ch.State != store.ChangeRunning {
			continue
		}
		if err := c.takeOverLocked(&ch); err != nil {
			return err
		}
	}
	return nil
}

func (c *changes) takeOverLocked(ch *store.Change) error {
	defer c.movedLocked(ch.ID) // who asked before this agent got here looks again
	o, err := c.store.Get(ch.Object)
	switch {
	case ch.Verb == verbPull:
		ch.State, ch.Error = store.ChangeFailed, "the agent was restarted meanwhile; ask again"
	case fault.Is(err, fault.NotFound):
		ch.State = store.ChangeDone // only what was to go is gone
	case err != nil:
		return err
	case c.open[o.Metadata.UID] != nil:
		ch.State = store.ChangeSuperseded
	default:
		c.open[o.Metadata.UID] = ch
		return nil
	}
	return c.store.PutChange(ch)
}

// begin opens a change of an object and returns its id.
func (c *changes) begin(o *spec.Object, verb, actor string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.beginLocked(o, verb, actor)
}

func (c *changes) beginLocked(o *spec.Object, verb, actor string) (string, error) {
	ch := &store.Change{
		ID: string(spec.NewUID()), At: c.now(), Actor: actor, Object: o.Ref(), Verb: verb, State: store.ChangeRunning,
	}
	if old := c.open[o.Metadata.UID]; old != nil {
		old.State = store.ChangeSuperseded
		if err := c.endLocked(o.Metadata.UID, old); err != nil {
			return "", err
		}
	}
	c.open[o.Metadata.UID] = ch
	return ch.ID, c.store.PutChange(ch)
}

func (c *changes) endLocked(uid spec.UID, ch *store.Change) error {
	delete(c.open, uid)
	delete(c.inForce, ch.ID)
	c.movedLocked(ch.ID)
	return c.store.PutChange(ch)
}

func (c *changes) movedLocked(id string) {
	for _, w := range c.waits[id] {
		close(w)
	}
	delete(c.waits, id)
}

// gone ends the change of an object that is no longer stored: it was done before
// the change could be opened.
func (c *changes) gone(uid spec.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch := c.open[uid]; ch != nil {
		ch.State = store.ChangeDone
		_ = c.endLocked(uid, ch) // as in finish: the host counts
	}
}

func snapshot(ch *store.Change) store.Change {
	out := *ch
	out.Steps = slices.Clone(ch.Steps)
	return out
}

// get gives a change as it is now, and a channel that is closed when it moves.
func (c *changes) get(id string) (store.Change, <-chan struct{}, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ch := range c.open {
		if ch.ID == id {
			return snapshot(ch), c.waitLocked(id), nil
		}
	}
	ch, err := c.store.Change(id)
	if err != nil || ch.State.Ended() {
		return ch, nil, err
	}
	return ch, c.waitLocked(id), nil // an earlier agent's, which is about to be ended
}

func (c *changes) waitLocked(id string) <-chan struct{} {
	moved := make(chan struct{})
	c.waits[id] = append(c.waits[id], moved)
	return moved
}

// Change gives one change, open or ended.
func (l *Loop) Change(id string) (store.Change, error) {
	ch, _, err := l.changes.get(id)
	return ch, err
}

// FollowChange calls each with the change as it is and at every move, until it
// has ended, each fails or ctx is done.
func (l *Loop) FollowChange(ctx context.Context, id string, each func(store.Change) error) error {
	for {
		ch, moved, err := l.changes.get(id)
		if err != nil {
			return err
		}
		if err := each(ch); err != nil || ch.State.Ended() {
			return err
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Pull does work that belongs to no lane, as a change of one step that can be
// followed, and returns its id at once.
func (l *Loop) Pull(ref spec.Ref, title, actor string, do func(context.Context, plan.Report) error) (string, error) {
	// A pull has an object of its own, so that it supersedes nothing.
	o := &spec.Object{Kind: ref.Kind, Metadata: spec.Metadata{Tenant: ref.Tenant, Name: ref.Name, UID: spec.NewUID()}}
	id, err := l.changes.begin(o, verbPull, actor)
	if err != nil {
		return "", err
	}
	rec := l.changes.recorder(o)
	step := plan.NewStep(plan.Isolation, verbPull, title, "asked for by "+actor, nil)
	rec.planned(plan.Of(step))
	started := l.lanes.spawn(func(ctx context.Context) {
		rec.started(step)
		begin := l.Now()
		err := do(ctx, rec.progress(step))
		rec.ended(step, l.Now().Sub(begin), err)
		rec.end(err)
	})
	if !started {
		err := fault.New(fault.Temporary, "pull "+title, "the agent is starting or ending")
		rec.end(err)
		return "", err
	}
	return id, nil
}

// recorder writes what a lane does to an object into its open change. Without
// one it opens its own at the first step, in the agent's name.
type recorder struct {
	changes *changes
	object  *spec.Object // nil: nothing is recorded
	verb    string
	id      string // the change that this run may end
}

func (c *changes) recorder(o *spec.Object) *recorder {
	return c.recorderOf(o, c.current(o.Metadata.UID))
}

// recorderOf is a recorder for an object that was read while the change id was
// current. A change that begins later is about a newer object: it is not this
// run that ends it.
func (c *changes) recorderOf(o *spec.Object, id string) *recorder {
	return &recorder{changes: c, object: o, verb: "converge", id: id}
}

// current is the id of the change of an object that is under way, or "".
func (c *changes) current(uid spec.UID) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch := c.open[uid]; ch != nil {
		return ch.ID
	}
	return ""
}

// silent records nothing: for lanes without an object a person would ask about.
func (c *changes) silent() *recorder { return &recorder{changes: c} }

func (r *recorder) planned(p plan.Plan) {
	if r.object == nil || p.Empty() {
		return
	}
	r.ensure()
	r.edit(func(ch *store.Change) {
		for _, s := range p.Steps {
			if find(ch, s.ID) == nil {
				ch.Steps = append(ch.Steps, store.ChangeStep{ID: string(s.ID), Title: s.Title, Why: s.Why, State: store.ChangePending})
			}
		}
	})
}

func (r *recorder) ensure() {
	r.changes.mu.Lock()
	defer r.changes.mu.Unlock()
	if r.changes.open[r.object.Metadata.UID] != nil {
		return
	}
	// A change that cannot be written down (the disk is full) must not keep the
	// host from converging.
	r.id, _ = r.changes.beginLocked(r.object, r.verb, "gpuhost")
}

func find(ch *store.Change, id plan.ID) *store.ChangeStep {
	i := slices.IndexFunc(ch.Steps, func(s store.ChangeStep) bool { return s.ID == string(id) })
	if i < 0 {
		return nil
	}
	return &ch.Steps[i]
}

func (r *recorder) edit(f func(*store.Change)) {
	if r.object == nil {
		return
	}
	r.changes.mu.Lock()
	defer r.changes.mu.Unlock()
	if ch := r.changes.open[r.object.Metadata.UID]; ch != nil {
		f(ch)
		r.changes.movedLocked(ch.ID)
	}
}

func (r *recorder) step(id plan.ID, f func(*store.ChangeStep)) {
	r.edit(func(ch *store.Change) {
		if s := find(ch, id); s != nil {
			f(s)
		}
	})
}

func (r *recorder) started(step plan.Step) {
	r.step(step.ID, func(s *store.ChangeStep) {
		s.State, s.StartedAt, s.Error = store.ChangeRunning, r.changes.now(), ""
	})
}

func (r *recorder) progress(step plan.Step) plan.Report {
	return func(p plan.Progress) {
		r.step(step.ID, func(s *store.ChangeStep) { s.Progress = &p })
	}
}

func (r *recorder) ended(step plan.Step, took time.Duration, err error) {
	r.step(step.ID, func(s *store.ChangeStep) {
		s.State, s.Duration = store.ChangeDone, took
		if err != nil {
			s.State, s.Error = store.ChangeFailed, err.Error()
		}
	})
}

// passing is how long an error that is expected to pass may keep a change open.
const passing = 10 * time.Second

// finish ends the object's open change: done without an error, else failed. The
// lane itself may still try again; while that is expected to help soon, the change
// stays open.
func (r *recorder) finish(err error) {
	r.close(err, fault.Is(err, fault.Temporary))
}

// end ends the change whatever the error: nobody tries again.
func (r *recorder) end(err error) { r.close(err, false) }

func (r *recorder) close(err error, retried bool) {
	if r.object == nil {
		return
	}
	r.changes.mu.Lock()
	defer r.changes.mu.Unlock()
	ch := r.changes.open[r.object.Metadata.UID]
	if ch == nil || ch.ID != r.id || retried && r.changes.now().Sub(ch.At) < passing {
		return
	}
	ch.State = store.ChangeDone
	if err != nil {
		ch.State, ch.Error, ch.Code, ch.Hint = store.ChangeFailed, err.Error(), fault.KindOf(err), fault.HintOf(err)
	}
	_ = r.changes.endLocked(r.object.Metadata.UID, ch)
}
