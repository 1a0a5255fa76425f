package client

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// Verb starts, stops or restarts an instance.
func (c *Client) Verb(ctx context.Context, ref spec.Ref, verb api.Verb) (api.ChangeRef, error) {
	path, err := pathOf(ref)
	if err != nil {
		return api.ChangeRef{}, err
	}
	return do[api.ChangeRef](ctx, c, request{method: http.MethodPost, path: path + "/" + string(verb)}, nil)
}

// Logs is the instance's log as text; the caller closes it.
func (c *Client) Logs(ctx context.Context, ref spec.Ref, o api.LogOptions) (api.Log, error) {
	path, err := pathOf(ref)
	if err != nil {
		return api.Log{}, err
	}
	query := url.Values{}
	if o.Follow {
		query.Set("follow", "true")
	}
	if !o.Since.IsZero() {
		query.Set("since", o.Since.Format(time.RFC3339Nano))
	}
	if o.Tail > 0 {
		query.Set("tail", strconv.Itoa(o.Tail))
	}
	resp, err := c.send(ctx, request{method: http.MethodGet, path: path + "/logs", query: query})
	if err != nil {
		return api.Log{}, err
	}
	log := api.Log{ReadCloser: resp.Body}
	log.DeletedAt, _ = time.Parse(time.RFC3339Nano, resp.Header.Get(api.HeaderDeletedAt)) // zero where there is none
	return log, nil
}

// Exec runs a command. The stream speaks package agent/frame; closing it hangs
// the command up.
func (c *Client) Exec(ctx context.Context, ref spec.Ref, in api.ExecRequest) (io.ReadWriteCloser, error) {
	path, err := pathOf(ref)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(in)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "encode request", err)
	}
	header := http.Header{"Connection": {"Upgrade"}, "Upgrade": {api.ExecProtocol}, "Content-Type": {"application/json"}}
	resp, err := c.send(ctx, request{method: http.MethodPost, path: path + "/exec", header: header,
		body: bytes.NewReader(text), length: int64(len(text))})
	if err != nil {
		return nil, err
	}
	stream, ok := resp.Body.(io.ReadWriteCloser)
	if !ok || resp.StatusCode != http.StatusSwitchingProtocols {
		resp.Body.Close()
		return nil, fault.New(fault.Internal, "exec in "+ref.String(), "the agent answered %s", resp.Status)
	}
	return stream, nil
}

// Audit reads one instance's isolation from the kernel.
func (c *Client) Audit(ctx context.Context, ref spec.Ref) (api.AuditReport, error) {
	path, err := pathOf(ref)
	if err != nil {
		return api.AuditReport{}, err
	}
	return get[api.AuditReport](ctx, c, path+"/audit")
}

// Images lists those of a tenant, or of all when it is empty.
func (c *Client) Images(ctx context.Context, tenant string) ([]api.Image, error) {
	return items[api.Image](ctx, c, at("images"), tenantQuery(tenant))
}

// PullImage fetches an image before it is needed.
func (c *Client) PullImage(ctx context.Context, in api.PullRequest) (api.ChangeRef, error) {
	return do[api.ChangeRef](ctx, c, request{method: http.MethodPost, path: at("images", "pull")}, in)
}

// ImportImage sends an OCI archive.
func (c *Client) ImportImage(ctx context.Context, in api.ImportRequest, archive io.Reader) ([]api.Image, error) {
	query := url.Values{"tenant": {in.Tenant}}
	if in.Name != "" {
		query.Set("name", in.Name)
	}
	r := request{method: http.MethodPost, path: at("images", "import"), query: query,
		header: http.Header{"Content-Type": {"application/x-tar"}}, body: archive, length: in.Size}
	list, err := do[api.List[api.Image]](ctx, c, r, nil)
	return list.Items, err
}

// RemoveImage removes one image.
func (c *Client) RemoveImage(ctx context.Context, tenant, name string) error {
	query := url.Values{"tenant": {tenant}, "name": {name}}
	_, err := do[api.None](ctx, c, request{method: http.MethodDelete, path: at("images"), query: query}, nil)
	return err
}

// PruneImages removes what no instance uses.
func (c *Client) PruneImages(ctx context.Context, tenant string) (api.PruneResult, error) {
	r := request{method: http.MethodPost, path: at("images", "prune"), query: tenantQuery(tenant)}
	return do[api.PruneResult](ctx, c, r, nil)
}
