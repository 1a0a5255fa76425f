package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// unpack checks that an image is one for this machine and that its layers fit,
// and unpacks it. An image that cannot be unpacked leaves the store again.
// ctx is the tenant's.
func (c *Client) unpack(ctx context.Context, ref string, image containerd.Image) (isolation.Image, error) {
	err := c.unpackLayers(ctx, "unpack image "+ref, image)
	if err == nil {
		return c.unpacked(ctx, ref, image)
	}
	if fault.Is(err, fault.Invalid) || fault.Is(err, fault.Exhausted) {
		removed := c.containerd.ImageService().Delete(ctx, image.Name())
		if removed != nil && !errdefs.IsNotFound(removed) {
			err = errors.Join(err, removed)
		}
	}
	return isolation.Image{}, err
}

func (c *Client) unpackLayers(ctx context.Context, what string, image containerd.Image) error {
	manifest, err := c.manifest(ctx, image.Target())
	if err != nil {
		return c.unusable(ctx, what, image, err)
	}
	layers, err := c.layers(ctx, manifest)
	if err != nil {
		return unpackFault(what, err)
	}
	if err := c.fitsUnpacked(ctx, what, image, layers); err != nil {
		return err
	}
	return unpackFault(what, image.Unpack(ctx, snapshotter))
}

// unpackFault tells the host's troubles from the image's.
func unpackFault(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case strings.Contains(err.Error(), "no space left on device"):
		return fault.Wrap(fault.Exhausted, what, err)
	case errdefs.IsUnavailable(err), errdefs.IsCanceled(err), errdefs.IsDeadlineExceeded(err),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return wrap(what, err)
	}
	return fault.Wrap(fault.Invalid, what, err)
}

// unusable says why an image has no manifest for this machine.
func (c *Client) unusable(ctx context.Context, what string, image containerd.Image, err error) error {
	offered, listErr := images.Platforms(ctx, c.containerd.ContentStore(), image.Target())
	if !errdefs.IsNotFound(err) || listErr != nil || len(offered) == 0 {
		return unpackFault(what, err)
	}
	var names []string
	for _, p := range offered {
		names = append(names, platforms.Format(p))
	}
	return fault.New(fault.Invalid, what, "it is for %s, this host is %s", strings.Join(names, ", "), platforms.DefaultString())
}

// manifest finds the manifest for this machine: target itself, or one of the
// manifests that target lists.
func (c *Client) manifest(ctx context.Context, target imagespec.Descriptor) (imagespec.Descriptor, error) {
	none := imagespec.Descriptor{}
	if images.IsManifestType(target.MediaType) {
		return target, c.checkPlatform(ctx, target)
	}
	if !images.IsIndexType(target.MediaType) {
		return none, fmt.Errorf("media type %q is no image: %w", target.MediaType, errdefs.ErrInvalidArgument)
	}
	children, err := images.Children(ctx, c.containerd.ContentStore(), target)
	if err != nil {
		return none, err
	}
	err = fmt.Errorf("no manifest for %s: %w", platforms.DefaultString(), errdefs.ErrNotFound)
	for _, child := range children {
		if !images.IsManifestType(child.MediaType) || child.Platform != nil && !platforms.Default().Match(*child.Platform) {
			continue
		}
		if err = c.checkPlatform(ctx, child); err == nil {
			return child, nil
		}
	}
	return none, err
}

// checkPlatform reads the platform from the configuration: a manifest outside
// of an index states none.
func (c *Client) checkPlatform(ctx context.Context, manifest imagespec.Descriptor) error {
	m, err := c.readManifest(ctx, manifest)
	if err != nil {
		return err
	}
	platform, err := images.ConfigPlatform(ctx, c.containerd.ContentStore(), m.Config)
	if err != nil {
		return err
	}
	if !platforms.Default().Match(platform) {
		return fmt.Errorf("platform is %s: %w", platforms.Format(platform), errdefs.ErrNotFound)
	}
	return nil
}

func (c *Client) readManifest(ctx context.Context, desc imagespec.Descriptor) (m imagespec.Manifest, err error) {
	blob, err := content.ReadBlob(ctx, c.containerd.ContentStore(), desc)
	if err != nil {
		return m, err
	}
	return m, json.Unmarshal(blob, &m)
}

// layers are those of a manifest. An image without any would get a bind mount
// for its root, without nosuid and nodev.
func (c *Client) layers(ctx context.Context, manifest imagespec.Descriptor) ([]imagespec.Descriptor, error) {
	m, err := c.readManifest(ctx, manifest)
	if err != nil {
		return nil, err
	}
	if len(m.Layers) == 0 {
		return nil, fmt.Errorf("it has no layers: %w", errdefs.ErrInvalidArgument)
	}
	for _, layer := range m.Layers {
		if !images.IsLayerType(layer.MediaType) {
			return nil, fmt.Errorf("media type %q is no layer: %w", layer.MediaType, errdefs.ErrInvalidArgument)
		}
	}
	return m.Layers, nil
}

// fits refuses what needs more bytes than the disk has free.
func (c *Client) fits(what string, need int64) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(c.config.Root, &fs); err != nil {
		return fmt.Errorf("read free space of %s: %w", c.config.Root, err)
	}
	free := int64(fs.Bavail) * fs.Bsize
	if need <= free {
		return nil
	}
	return fault.New(fault.Exhausted, what, "it needs %s, %s is free: %s are missing",
		size(need), size(free), size(need-free)).WithHint("gpuhost image prune")
}

func size(n int64) string { return fmt.Sprintf("%.1f MiB", float64(spec.Bytes(n))/(1<<20)) }
