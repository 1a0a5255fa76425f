package apitest

import (
	"context"
	"slices"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/fault"
)

// Events implements api.History.
func (b *Backend) Events(_ context.Context, q api.EventQuery) ([]api.Event, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	found := b.after(q)
	if q.Limit > 0 && len(found) > q.Limit {
		found = found[len(found)-q.Limit:]
	}
	return found, b.fail["Events"]
}

func (b *Backend) after(q api.EventQuery) []api.Event {
	var found []api.Event
	for _, e := range b.events {
		if e.Seq > q.After && !e.At.Before(q.Since) && (q.Tenant == "" || e.Object.Tenant == q.Tenant) {
			found = append(found, e)
		}
	}
	return found
}

// FollowEvents implements api.History.
func (b *Backend) FollowEvents(ctx context.Context, q api.EventQuery, each func(api.Event) error) error {
	b.follow("events")
	for {
		b.mu.Lock()
		found, changed, err := b.after(q), b.changed, b.fail["FollowEvents"]
		b.mu.Unlock()
		for _, e := range found {
			if err := each(e); err != nil {
				return err
			}
			q.After = e.Seq
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// Changes implements api.History.
func (b *Backend) Changes(_ context.Context, q api.ChangeQuery) ([]api.Change, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []api.Change
	for _, c := range slices.Backward(b.changes) {
		if q.Tenant == "" || c.Object.Tenant == q.Tenant {
			found = append(found, c)
		}
	}
	if q.Limit > 0 && len(found) > q.Limit {
		found = found[:q.Limit]
	}
	return found, b.fail["Changes"]
}

// Change implements api.History.
func (b *Backend) Change(_ context.Context, id string) (api.Change, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.changes {
		if c.ID == id {
			return c, nil
		}
	}
	return api.Change{}, fault.New(fault.NotFound, "change "+id, "there is none").WithHint("gpuhost changes")
}

// FollowChange implements api.History.
func (b *Backend) FollowChange(ctx context.Context, id string, each func(api.Change) error) error {
	b.follow(id)
	for {
		b.mu.Lock()
		changed := b.changed
		b.mu.Unlock()
		c, err := b.Change(ctx, id)
		if err != nil {
			return err
		}
		if err := each(c); err != nil || c.State.Ended() {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}
