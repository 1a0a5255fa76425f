package service

import (
	"cmp"
	"context"
	"io"
	"slices"
	"strings"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/reconcile"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/agent/store"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/isolation/runtime"
)

// Images implements api.Images.
type Images struct {
	Loop    *reconcile.Loop
	Store   *store.Store
	Runtime *runtime.Client
	Secrets isolation.Secrets
}

// List implements api.Images.
func (s Images) List(ctx context.Context, tenant string) ([]api.Image, error) {
	tenants, err := s.tenants(tenant)
	if err != nil {
		return nil, err
	}
	var out []api.Image
	for _, name := range tenants {
		found, err := s.Runtime.Images(ctx, name)
		if err != nil {
			return nil, err
		}
		for _, i := range found {
			out = append(out, s.image(i))
		}
	}
	return out, nil
}

// tenants is one tenant, or all for "".
func (s Images) tenants(tenant string) ([]string, error) {
	if tenant != "" {
		return []string{tenant}, nil
	}
	objects, err := s.Store.List(spec.KindTenant, "")
	var out []string
	for _, o := range objects {
		out = append(out, o.Metadata.Name)
	}
	return out, err
}

func (s Images) image(i runtime.ImageInfo) api.Image {
	out := api.Image{Tenant: i.Tenant, Name: i.Ref, Digest: i.Digest, Bytes: int64(i.Size), CreatedAt: i.Created}
	for _, uid := range i.UsedBy {
		if o, err := s.Store.GetUID(uid); err == nil {
			out.UsedBy = append(out.UsedBy, o.Metadata.Name)
		}
	}
	slices.Sort(out.UsedBy)
	return out
}

// Pull implements api.Images.
func (s Images) Pull(ctx context.Context, who api.Caller, r api.PullRequest) (api.ChangeRef, error) {
	request := isolation.ImageRequest{Tenant: r.Tenant, Ref: r.Image, Policy: spec.PullAlways}
	if r.Secret != "" {
		request.Login = func(ctx context.Context) (username, password string, err error) {
			if username, err = s.Secrets.Value(ctx, r.Tenant, r.Secret+"/username"); err != nil {
				return "", "", err
			}
			password, err = s.Secrets.Value(ctx, r.Tenant, r.Secret+"/password")
			return username, password, err
		}
	}
	tenant := spec.Ref{Kind: spec.KindTenant, Name: r.Tenant}
	id, err := s.Loop.Pull(tenant, r.Image, who.Name, func(ctx context.Context, report plan.Report) error {
		_, err := s.Runtime.PrepareImage(ctx, request, report)
		return err
	})
	return api.ChangeRef{ID: id, Object: tenant}, err
}

// Import implements api.Images.
func (s Images) Import(ctx context.Context, _ api.Caller, r api.ImportRequest, archive io.Reader) ([]api.Image, error) {
	if r.Tenant == "" {
		return nil, fault.New(fault.Invalid, "import image", "no tenant is named")
	}
	imported, err := s.Runtime.ImportImage(ctx, r.Tenant, r.Name, r.Size, archive)
	if err != nil {
		return nil, err
	}
	all, err := s.List(ctx, r.Tenant)
	return slices.DeleteFunc(all, func(i api.Image) bool { return i.Name != imported.Ref }), err
}

// Remove implements api.Images.
func (s Images) Remove(ctx context.Context, _ api.Caller, tenant, name string) error {
	found, err := s.Runtime.Images(ctx, tenant)
	if err != nil {
		return err
	}
	for _, i := range found {
		if !i.Named(name) || !InUse(s.Store, i) {
			continue
		}
		users := strings.Join(s.image(i).UsedBy, ", ")
		return fault.New(fault.Busy, "remove image "+name, "instance %s of tenant %s uses it", cmp.Or(users, "that is about to start"), tenant).
			WithHint("gpuhost image list --tenant %s", tenant)
	}
	err = s.Runtime.RemoveImage(ctx, tenant, name)
	if fault.Is(err, fault.NotFound) {
		return fault.New(fault.NotFound, "remove image "+name, "tenant %s has none of this name", tenant).WithHint("gpuhost image list")
	}
	return err
}

// Prune implements api.Images.
func (s Images) Prune(ctx context.Context, _ api.Caller, tenant string) (api.PruneResult, error) {
	tenants, err := s.tenants(tenant)
	if err != nil {
		return api.PruneResult{}, err
	}
	var out api.PruneResult
	for _, name := range tenants {
		found, err := s.Runtime.Images(ctx, name)
		if err != nil {
			return out, err
		}
		for _, i := range found {
			if err := s.prune(ctx, i, &out); err != nil {
				return out, err
			}
		}
	}
	return out, nil
}

func (s Images) prune(ctx context.Context, i runtime.ImageInfo, out *api.PruneResult) error {
	if InUse(s.Store, i) {
		return nil
	}
	err := s.Runtime.RemoveImage(ctx, i.Tenant, i.Ref)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	out.Removed = append(out.Removed, s.image(i))
	out.FreedBytes += int64(i.Size)
	return nil
}

// InUse says whether an instance was made from an image, or is to run with it and
// may be about to be made. It looks at this moment: ask before each removal.
func InUse(s *store.Store, i runtime.ImageInfo) bool {
	if len(i.UsedBy) > 0 {
		return true
	}
	instances, err := s.List(spec.KindInstance, i.Tenant)
	return err != nil || slices.ContainsFunc(instances, func(o *spec.Object) bool {
		in := o.Spec.(*spec.InstanceSpec)
		return o.Metadata.DeletedAt == nil && in.State != spec.StateStopped && i.Named(in.Image)
	})
}
