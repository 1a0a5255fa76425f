package service

import (
	"context"
	"slices"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/reconcile"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/agent/store"
)

// Objects implements api.Objects and api.Planner.
type Objects struct {
	Loop  *reconcile.Loop
	Store *store.Store
}

// Apply implements api.Objects.
func (s Objects) Apply(ctx context.Context, who api.Caller, objects []*spec.Object, how api.ApplyOptions) (api.ApplyResult, error) {
	if how.IfMatch != 0 && len(objects) == 1 {
		o := *objects[0]
		o.Metadata.Generation = how.IfMatch
		objects = []*spec.Object{&o}
	}
	written, err := s.Loop.Write(ctx, objects, reconcile.WriteOptions{
		Source: spec.SourceAPI, Actor: who.Name, DryRun: how.DryRun, CreateOnly: how.CreateOnly, ByTenant: who.Role == api.RoleTenant,
	})
	if err != nil {
		return api.ApplyResult{}, err
	}
	var out api.ApplyResult
	for _, w := range written {
		out.Objects = append(out.Objects, api.Applied{Object: w.Object, Action: actionOf(w.Applied.Change)})
		if w.Change != "" {
			out.Changes = append(out.Changes, api.ChangeRef{ID: w.Change, Object: w.Object.Ref()})
		}
	}
	return out, nil
}

func actionOf(a store.Action) api.Action { return api.Action(a) }

// Get implements api.Objects.
func (s Objects) Get(_ context.Context, ref spec.Ref) (*spec.Object, error) { return s.Store.Get(ref) }

// List implements api.Objects.
func (s Objects) List(_ context.Context, kind spec.Kind, tenant string) ([]*spec.Object, error) {
	return s.Store.List(kind, tenant)
}

// Delete implements api.Objects.
func (s Objects) Delete(_ context.Context, who api.Caller, ref spec.Ref, ifMatch uint64) (api.ChangeRef, error) {
	id, err := s.Loop.Delete(ref, ifMatch, who.Name)
	return api.ChangeRef{ID: id, Object: ref}, err
}

// Plan implements api.Planner.
func (s Objects) Plan(ctx context.Context, objects []*spec.Object) (api.PlanResult, error) {
	planned, err := s.Loop.Preview(ctx, objects)
	if err != nil {
		return api.PlanResult{}, err
	}
	out := api.PlanResult{Objects: make([]api.PlannedObject, len(planned))}
	for i, p := range planned {
		diffs, err := diff(p.Before, p.Object)
		if err != nil {
			return api.PlanResult{}, err
		}
		out.Objects[i] = api.PlannedObject{Object: p.Object.Ref(), Action: actionOf(p.Change), Diffs: diffs, Plan: p.Plan}
	}
	return out, nil
}

// Verify implements api.Planner.
func (s Objects) Verify(ctx context.Context, objects []*spec.Object) ([]api.Deviation, error) {
	found, err := s.Loop.Verify(ctx, objects)
	out := make([]api.Deviation, len(found))
	for i, d := range found {
		out[i] = api.Deviation(d)
	}
	return out, err
}

// Verb does start, stop and restart.
func (s Objects) Verb(ctx context.Context, who api.Caller, ref spec.Ref, verb api.Verb) (api.ChangeRef, error) {
	if !slices.Contains([]api.Verb{api.VerbStart, api.VerbStop, api.VerbRestart}, verb) {
		return api.ChangeRef{}, fault.New(fault.Unsupported, string(verb)+" "+ref.String(), "this verb is not built yet")
	}
	ref, id, err := s.Loop.SetState(ctx, ref, string(verb), who.Name)
	return api.ChangeRef{ID: id, Object: ref}, err
}
