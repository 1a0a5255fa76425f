package runtime

import (
	"cmp"
	"context"
	"slices"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// Leftover is what containerd has of one instance.
type Leftover struct {
	Tenant    string   `json:"tenant"`
	UID       spec.UID `json:"uid"`
	Snapshot  bool     `json:"snapshot"`
	Container bool     `json:"container"`
	Task      bool     `json:"task"`
}

// Leftovers lists everything that carries our mark, whether or not anybody
// still wants it: what is in no lease is to be removed, with a lease that
// wants it absent.
func (c *Client) Leftovers(ctx context.Context) ([]Leftover, error) {
	tenants, err := c.tenants(ctx)
	if err != nil {
		return nil, err
	}
	found := make(map[instance]*Leftover)
	for _, tenant := range tenants {
		if err := c.tenantLeftovers(c.tenant(ctx, tenant), tenant, found); err != nil {
			return nil, wrap("list containers of tenant "+tenant, err)
		}
	}
	var list []Leftover
	for _, l := range found {
		list = append(list, *l)
	}
	slices.SortFunc(list, func(a, b Leftover) int { return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.UID, b.UID)) })
	return list, nil
}

func (c *Client) tenantLeftovers(ctx context.Context, tenant string, found map[instance]*Leftover) error {
	of := func(uid string) *Leftover {
		i := instance{tenant, spec.UID(uid)}
		if found[i] == nil {
			found[i] = &Leftover{Tenant: tenant, UID: i.uid}
		}
		return found[i]
	}
	err := c.snapshots().Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		of(info.Labels[labelUID]).Snapshot = true
		return nil
	}, `labels."`+labelUID+`"`)
	if err != nil {
		return err
	}
	records, err := c.containerd.ContainerService().List(ctx, `labels."`+labelUID+`"`)
	if err != nil {
		return err
	}
	for _, r := range records {
		of(r.ID).Container = true
	}
	running, err := c.containerd.TaskService().List(ctx, &tasks.ListTasksRequest{})
	if err != nil {
		return errgrpc.ToNative(err)
	}
	for _, task := range running.Tasks {
		of(task.ID).Task = true
	}
	return nil
}

// RemoveTenant removes a tenant's images and its containerd namespace; it is
// busy while an instance of it is left.
func (c *Client) RemoveTenant(ctx context.Context, tenant string) error {
	what := "remove images of tenant " + tenant
	if _, err := c.PruneImages(ctx, tenant); err != nil {
		return err
	}
	if err := c.dropLeases(c.tenant(ctx, tenant)); err != nil {
		return wrap(what, err)
	}
	err := c.containerd.NamespaceService().Delete(ctx, c.namespace(tenant))
	if errdefs.IsNotFound(err) {
		return nil
	}
	return wrap(what, err)
}

// dropLeases ends what an agent that was killed in the middle of an import or a
// pull still holds for a day, and waits for the collection of what that kept.
func (c *Client) dropLeases(ctx context.Context) error {
	service := c.containerd.LeasesService()
	if _, err := service.Create(ctx); err != nil { // so that there is an end to wait for
		return err
	}
	held, err := service.List(ctx)
	if err != nil {
		return err
	}
	for _, lease := range held {
		if err := service.Delete(ctx, lease, leases.SynchronousDelete); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	return nil
}
