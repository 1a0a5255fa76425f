package runtime

import (
	"context"
	"slices"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
)

// ImageInfo is one image of one tenant, for people.
type ImageInfo struct {
	Tenant  string     `json:"tenant"`
	Ref     string     `json:"ref"`
	Digest  string     `json:"digest"`
	Size    spec.Bytes `json:"size"` // compressed, as in the store
	Created time.Time  `json:"created"`
	UsedBy  []spec.UID `json:"usedBy,omitempty"` // instances made from it
}

// Named says whether a reference, in any of its spellings, means this image.
func (i ImageInfo) Named(ref string) bool {
	name, _, err := imageName(ref)
	return err == nil && name == i.Ref
}

// Image says what the tenant has of ref: a zero Image when it is not there or
// not unpacked.
func (c *Client) Image(ctx context.Context, tenant, ref string) (isolation.Image, error) {
	ctx = c.tenant(ctx, tenant)
	image, err := c.image(ctx, ref)
	if errdefs.IsNotFound(err) {
		return isolation.Image{}, nil
	}
	if err != nil {
		return isolation.Image{}, wrap("read image "+ref, err)
	}
	return c.unpacked(ctx, ref, image)
}

// image finds ref in the store of the tenant that ctx is of.
func (c *Client) image(ctx context.Context, ref string) (containerd.Image, error) {
	name, _, err := imageName(ref)
	if err != nil {
		return nil, err
	}
	return c.containerd.GetImage(ctx, name)
}

func (c *Client) unpacked(ctx context.Context, ref string, image containerd.Image) (isolation.Image, error) {
	what := "read image " + ref
	done, err := image.IsUnpacked(ctx, snapshotter)
	if errdefs.IsNotFound(err) || (err == nil && !done) {
		return isolation.Image{}, nil // not for this platform, or incomplete
	}
	if err != nil {
		return isolation.Image{}, wrap(what, err)
	}
	manifest, err := c.manifest(ctx, image.Target())
	if err != nil {
		return isolation.Image{}, wrap(what, err)
	}
	return isolation.Image{Ref: ref, Digest: manifest.Digest.String()}, nil
}

// PrepareImage brings ref into the tenant's store and unpacks it.
func (c *Client) PrepareImage(ctx context.Context, req isolation.ImageRequest, report plan.Report) (isolation.Image, error) {
	have, err := c.Image(ctx, req.Tenant, req.Ref)
	if err != nil {
		return isolation.Image{}, err
	}
	there := have != (isolation.Image{})
	if there && req.Policy != spec.PullAlways {
		return have, nil
	}
	if req.Policy == spec.PullNever {
		return isolation.Image{}, fault.New(fault.NotFound, "find image "+req.Ref, "the tenant has no such image and pullPolicy is never").
			WithHint("gpuhost image pull %s", req.Ref)
	}
	name, archive, err := imageName(req.Ref)
	if err != nil {
		return isolation.Image{}, err
	}
	if archive != "" {
		return c.importFile(ctx, req.Tenant, name, archive, report)
	}
	return c.pull(ctx, req, name, report)
}

// Images lists the images of one tenant, or of all for an empty tenant.
func (c *Client) Images(ctx context.Context, tenant string) ([]ImageInfo, error) {
	tenants := []string{tenant}
	if tenant == "" {
		var err error
		if tenants, err = c.tenants(ctx); err != nil {
			return nil, err
		}
	}
	var all []ImageInfo
	for _, t := range tenants {
		list, err := c.tenantImages(ctx, t)
		if err != nil {
			return nil, wrap("list images of tenant "+t, err)
		}
		all = append(all, list...)
	}
	return all, nil
}

func (c *Client) tenantImages(ctx context.Context, tenant string) ([]ImageInfo, error) {
	ctx = c.tenant(ctx, tenant)
	used, err := c.imageUsers(ctx)
	if err != nil {
		return nil, err
	}
	list, err := c.containerd.ListImages(ctx)
	if err != nil {
		return nil, err
	}
	var infos []ImageInfo
	for _, image := range list {
		size, err := image.Size(ctx)
		if err != nil {
			size = 0 // incomplete: still listed, so that it can be removed
		}
		infos = append(infos, ImageInfo{
			Tenant: tenant, Ref: image.Name(), Digest: image.Target().Digest.String(), Size: spec.Bytes(size),
			Created: image.Metadata().CreatedAt, UsedBy: used[image.Name()],
		})
	}
	slices.SortFunc(infos, func(a, b ImageInfo) int { return strings.Compare(a.Ref, b.Ref) })
	return infos, nil
}

// imageUsers lists the instances made from each image of a tenant.
func (c *Client) imageUsers(ctx context.Context) (map[string][]spec.UID, error) {
	records, err := c.containerd.ContainerService().List(ctx)
	if err != nil {
		return nil, err
	}
	users := make(map[string][]spec.UID)
	for _, r := range records {
		users[r.Image] = append(users[r.Image], spec.UID(r.ID))
	}
	return users, nil
}

// RemoveImage removes an image of a tenant. Disks made from it keep what they
// need of it; what nobody needs is freed.
func (c *Client) RemoveImage(ctx context.Context, tenant, ref string) error {
	name, _, err := imageName(ref)
	if err != nil {
		return err
	}
	return wrap("remove image "+ref, c.containerd.ImageService().Delete(c.tenant(ctx, tenant), name, images.SynchronousDelete()))
}

// PruneImages removes the images of a tenant (all tenants' for "") that no
// instance was made from, and returns them.
func (c *Client) PruneImages(ctx context.Context, tenant string) ([]ImageInfo, error) {
	all, err := c.Images(ctx, tenant)
	if err != nil {
		return nil, err
	}
	var removed []ImageInfo
	for _, image := range all {
		if len(image.UsedBy) > 0 {
			continue
		}
		err := c.containerd.ImageService().Delete(c.tenant(ctx, image.Tenant), image.Ref, images.SynchronousDelete())
		if err != nil && !errdefs.IsNotFound(err) {
			return removed, wrap("remove image "+image.Ref, err)
		}
		removed = append(removed, image)
	}
	return removed, nil
}
