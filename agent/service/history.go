package service

import (
	"context"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/reconcile"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/agent/store"
)

// History implements api.History.
type History struct {
	Loop  *reconcile.Loop
	Store *store.Store
}

// Events implements api.History.
func (s History) Events(_ context.Context, q api.EventQuery) ([]api.Event, error) {
	all, err := s.Store.Events(q.After, 0)
	if err != nil {
		return nil, err
	}
	var out []api.Event
	for _, e := range all {
		if selects(q, e) {
			out = append(out, api.Event(e))
		}
	}
	if q.Limit > 0 && len(out) > q.Limit {
		out = out[len(out)-q.Limit:]
	}
	return out, nil
}

func selects(q api.EventQuery, e store.Event) bool {
	return !e.At.Before(q.Since) && (q.Tenant == "" || concerns(e.Object, q.Tenant))
}

func concerns(ref spec.Ref, tenant string) bool {
	return ref.Tenant == tenant || ref.Kind == spec.KindTenant && ref.Name == tenant
}

// FollowEvents implements api.History.
func (s History) FollowEvents(ctx context.Context, q api.EventQuery, each func(api.Event) error) error {
	for {
		next := s.Store.NextEvent()
		fresh, err := s.Store.Events(q.After, 0)
		if err != nil {
			return err
		}
		for _, e := range fresh {
			q.After = e.Seq
			if !selects(q, e) {
				continue
			}
			if err := each(api.Event(e)); err != nil {
				return err
			}
		}
		select {
		case <-next:
		case <-ctx.Done():
			return nil
		}
	}
}

// Changes implements api.History.
func (s History) Changes(_ context.Context, q api.ChangeQuery) ([]api.Change, error) {
	all, err := s.Store.Changes(0)
	if err != nil {
		return nil, err
	}
	var out []api.Change
	for _, ch := range all {
		if q.Limit > 0 && len(out) == q.Limit {
			break
		}
		if q.Tenant == "" || concerns(ch.Object, q.Tenant) {
			out = append(out, changeOf(ch))
		}
	}
	return out, nil
}

// Change implements api.History.
func (s History) Change(_ context.Context, id string) (api.Change, error) {
	ch, err := s.Loop.Change(id)
	return changeOf(ch), err
}

// FollowChange implements api.History.
func (s History) FollowChange(ctx context.Context, id string, each func(api.Change) error) error {
	return s.Loop.FollowChange(ctx, id, func(ch store.Change) error { return each(changeOf(ch)) })
}

func changeOf(ch store.Change) api.Change {
	out := api.Change{
		ID: ch.ID, At: ch.At, Actor: ch.Actor, Object: ch.Object, Verb: ch.Verb, State: api.ChangeState(ch.State),
		Error: ch.Error, Code: string(ch.Code), Hint: ch.Hint,
	}
	for _, step := range ch.Steps {
		out.Steps = append(out.Steps, api.ChangeStep{
			ID: step.ID, Title: step.Title, Why: step.Why, State: api.ChangeState(step.State), StartedAt: step.StartedAt,
			Duration: spec.Duration(step.Duration), Error: step.Error, Progress: step.Progress,
		})
	}
	return out
}
