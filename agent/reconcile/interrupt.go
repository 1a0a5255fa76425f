package reconcile

import (
	"context"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
)

// A pull may take an hour. It is the one step that is given up half-way once
// nobody wants what it is for: what it fetched is no part of any instance yet.
// Every other step comes to its end, and the lane plans anew from there.

// pull is the preparation of an image that is under way.
type pull struct {
	object *spec.Object // as it was planned for
	end    context.CancelCauseFunc
}

// interruptible does one step of an object's plan. Where that is the preparation
// of an image it ends with a conflict, so that the lane plans anew at once, when
// the object is changed meanwhile such that it does not want it any more.
func (l *Loop) interruptible(ctx context.Context, step plan.Step, o *spec.Object, do func(context.Context) error) error {
	if o == nil || step.Verb != isolation.VerbPrepareImage {
		return do(ctx)
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	uid := o.Metadata.UID
	l.setPull(uid, &pull{object: o, end: end})
	defer l.setPull(uid, nil)
	// From here on a writer finds the pull; what was written before is looked at.
	if now, err := l.Store.GetUID(uid); err != nil || !wantsPull(o, now) {
		return unwanted(o)
	}
	err := do(ctx)
	if cause := context.Cause(ctx); err != nil && fault.Is(cause, fault.Conflict) {
		return cause
	}
	return err
}

func (l *Loop) setPull(uid spec.UID, p *pull) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p == nil {
		delete(l.pulls, uid)
	} else {
		l.pulls[uid] = p
	}
}

// interrupt ends the pull for an object that was written, unless it is wanted as
// before.
func (l *Loop) interrupt(now *spec.Object) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.pulls[now.Metadata.UID]; p != nil && !wantsPull(p.object, now) {
		p.end(unwanted(now))
	}
}

// wantsPull says whether an instance still waits for the image it was planned with.
func wantsPull(was, now *spec.Object) bool {
	a, b := instanceOf(was), instanceOf(now)
	return now.Metadata.DeletedAt == nil && b.State != spec.StateStopped &&
		a.Image == b.Image && a.PullPolicy == b.PullPolicy && a.PullSecret == b.PullSecret
}

func unwanted(o *spec.Object) error {
	return fault.New(fault.Conflict, "prepare the image of "+o.Ref().String(), "it is not wanted any more")
}
