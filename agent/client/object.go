package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// pathOf is where an object lives in the API.
func pathOf(ref spec.Ref) (string, error) {
	switch {
	case ref.Kind == spec.KindHost:
		return at("host"), nil
	case ref.Name == "" || ref.Name == "." || ref.Name == "..":
		return "", fault.New(fault.Invalid, "name "+strconv.Quote(ref.Name), "is no name")
	case ref.Kind == spec.KindTenant:
		return at("tenants", ref.Name), nil
	case ref.Tenant == "" || ref.Tenant == "." || ref.Tenant == "..":
		return "", fault.New(fault.Invalid, "tenant "+strconv.Quote(ref.Tenant), "is no name")
	default:
		return at("tenants", ref.Tenant, ref.Kind.Plural(), ref.Name), nil
	}
}

// Apply stores objects, all or none.
func (c *Client) Apply(ctx context.Context, in api.ApplyRequest) (api.ApplyResult, error) {
	return do[api.ApplyResult](ctx, c, request{method: http.MethodPost, path: at("apply")}, in)
}

// Run creates instances from a template.
func (c *Client) Run(ctx context.Context, in api.RunRequest) (api.ApplyResult, error) {
	path := at("tenants", in.Template.Metadata.Tenant, "instances")
	return do[api.ApplyResult](ctx, c, request{method: http.MethodPost, path: path}, in)
}

// Get reads one object.
func (c *Client) Get(ctx context.Context, ref spec.Ref) (*spec.Object, error) {
	path, err := pathOf(ref)
	if err != nil {
		return nil, err
	}
	return get[*spec.Object](ctx, c, path)
}

// List reads all objects of a kind, of one tenant or, when it is empty, of all.
func (c *Client) List(ctx context.Context, kind spec.Kind, tenant string) ([]*spec.Object, error) {
	if kind == spec.KindHost {
		host, err := c.Get(ctx, spec.Ref{Kind: kind, Name: api.HostName})
		return []*spec.Object{host}, err
	}
	if kind == spec.KindTenant {
		return items[*spec.Object](ctx, c, at("tenants"), nil)
	}
	if tenant == "" {
		tenant = api.AllTenants
	}
	return items[*spec.Object](ctx, c, at("tenants", tenant, kind.Plural()), nil)
}

// Delete asks for an object to go. generation is what was read before, 0 for any.
func (c *Client) Delete(ctx context.Context, ref spec.Ref, generation uint64) (api.ChangeRef, error) {
	path, err := pathOf(ref)
	if err != nil {
		return api.ChangeRef{}, err
	}
	return do[api.ChangeRef](ctx, c, request{method: http.MethodDelete, path: path, header: ifMatch(generation)}, nil)
}

// Plan says what would change for the objects, or for all stored ones.
func (c *Client) Plan(ctx context.Context, objects []*spec.Object) (api.PlanResult, error) {
	return do[api.PlanResult](ctx, c, request{method: http.MethodPost, path: at("plan")}, api.PlanRequest{Objects: objects})
}

// Verify says where the host is not as the objects, or all stored ones, want it.
func (c *Client) Verify(ctx context.Context, objects []*spec.Object) ([]api.Deviation, error) {
	list, err := do[api.List[api.Deviation]](ctx, c, request{method: http.MethodPost, path: at("verify")}, api.PlanRequest{Objects: objects})
	return list.Items, err
}

// Caller is who the agent takes us for.
func (c *Client) Caller(ctx context.Context) (api.Caller, error) {
	return get[api.Caller](ctx, c, at("caller"))
}

// Version is what the agent runs.
func (c *Client) Version(ctx context.Context) (api.Version, error) {
	return get[api.Version](ctx, c, at("version"))
}

// Events calls each for every event there is that the query asks for.
func (c *Client) Events(ctx context.Context, q api.EventQuery, each func(api.Event) error) error {
	resp, err := c.send(ctx, eventsRequest(q, false))
	if err != nil {
		return err
	}
	return decodeStream(ctx, c, resp, each)
}

func eventsRequest(q api.EventQuery, follow bool) request {
	query := url.Values{}
	switch {
	case !q.Since.IsZero():
		query.Set("since", q.Since.Format(time.RFC3339Nano))
	case q.After > 0:
		query.Set("since", strconv.FormatUint(q.After, 10))
	}
	if q.Limit > 0 {
		query.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Tenant != "" {
		query.Set("tenant", q.Tenant)
	}
	if follow {
		query.Set("follow", "true")
	}
	return request{method: http.MethodGet, path: at("events"), query: query}
}

// Changes gives the latest ones, newest first.
func (c *Client) Changes(ctx context.Context, q api.ChangeQuery) ([]api.Change, error) {
	query := url.Values{}
	if q.Limit > 0 {
		query.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Tenant != "" {
		query.Set("tenant", q.Tenant)
	}
	return items[api.Change](ctx, c, at("changes"), query)
}

// Change reads one change.
func (c *Client) Change(ctx context.Context, id string) (api.Change, error) {
	return get[api.Change](ctx, c, at("changes", id))
}
