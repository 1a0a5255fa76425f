package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// Status is the machine at a glance.
func (c *Client) Status(ctx context.Context) (api.HostStatus, error) {
	return get[api.HostStatus](ctx, c, at("status"))
}

// GPUs lists devices with their owners.
func (c *Client) GPUs(ctx context.Context) ([]api.GPU, error) {
	return items[api.GPU](ctx, c, at("gpus"), nil)
}

// Links says how GPUs reach each other.
func (c *Client) Links(ctx context.Context) ([]gpu.Link, error) {
	return items[gpu.Link](ctx, c, at("links"), nil)
}

// SetGPU quarantines or releases a GPU.
func (c *Client) SetGPU(ctx context.Context, id gpu.UUID, in api.GPUActionRequest) (api.ChangeRef, error) {
	r := request{method: http.MethodPost, path: at("gpus", string(id), "action")}
	return do[api.ChangeRef](ctx, c, r, in)
}

// AuditAll reads the isolation of all running instances from the kernel.
func (c *Client) AuditAll(ctx context.Context) ([]api.AuditReport, error) {
	return items[api.AuditReport](ctx, c, at("audit"), nil)
}

// Doctor runs the checks named, or all.
func (c *Client) Doctor(ctx context.Context, checks []string) ([]api.CheckResult, error) {
	return items[api.CheckResult](ctx, c, at("doctor"), url.Values{"check": checks})
}

// Config is the settings in force.
func (c *Client) Config(ctx context.Context) ([]api.Setting, error) {
	return items[api.Setting](ctx, c, at("config"), nil)
}

// Reload has the agent read its settings and desired state again.
func (c *Client) Reload(ctx context.Context) (api.ReloadResult, error) {
	return do[api.ReloadResult](ctx, c, request{method: http.MethodPost, path: at("config", "reload")}, nil)
}

// Break breaks a simulated GPU.
func (c *Client) Break(ctx context.Context, in api.SimRequest) error {
	_, err := do[api.None](ctx, c, request{method: http.MethodPost, path: at("sim")}, in)
	return err
}

// Mend makes every simulated GPU whole again.
func (c *Client) Mend(ctx context.Context) error {
	_, err := do[api.None](ctx, c, request{method: http.MethodDelete, path: at("sim")}, nil)
	return err
}
