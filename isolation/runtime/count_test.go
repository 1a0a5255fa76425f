package runtime

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
	"github.com/gpuhost/gpuhost/packaging/lab/ociimage"
)

// Images that are small until they are unpacked, on a disk of 16 MiB and a
// thousand files: none is begun, and nothing of it stays.
func TestBombs(t *testing.T) {
	h := newHost(t)
	small := t.TempDir()
	if err := unix.Mount("small", small, "tmpfs", 0, "size=16m,nr_inodes=1000"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(small, unix.MNT_DETACH)
	h.client.config.Root = small // of which space is asked; containerd stays where it is
	zeros := ociimage.File("zeros", 0o644, string(make([]byte, 32<<20)))
	var many ociimage.Layer
	for i := range 2000 {
		many = append(many, ociimage.File(fmt.Sprintf("f%d", i), 0o644, ""))
	}
	for name, image := range map[string]ociimage.Spec{
		"compressed": {Layers: []ociimage.Layer{{zeros}}, Gzip: true},
		"in parts":   {Layers: []ociimage.Layer{{half("a")}, {half("b")}, {half("c")}}, Gzip: true},
		"files":      {Layers: []ociimage.Layer{many}, Gzip: true},
		"sparse":     {Layers: []ociimage.Layer{ociimage.Sparse("hole", 1<<50)}},
	} {
		t.Run(name, func(t *testing.T) {
			ref := "oci-archive:" + hosttest.WriteArchive(t, image)
			_, err := h.client.PrepareImage(t.Context(), isolation.ImageRequest{Tenant: "acme", Ref: ref}, nil)
			if !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "unpacked it needs at least") {
				t.Errorf("error %v", err)
			}
			t.Log(err)
			h.collectGarbage()
			if left := h.stored(); left != "" {
				t.Errorf("left behind: %s", left)
			}
		})
	}
}

func half(name string) ociimage.Entry {
	return ociimage.File(name, 0o644, string(make([]byte, 6<<20)))
}

// stored names the images, blobs and snapshots of the tenant.
func (h *host) stored() string {
	h.t.Helper()
	ctx := h.client.tenant(h.t.Context(), "acme")
	var left bytes.Buffer
	list, err := h.client.containerd.ListImages(ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, image := range list {
		fmt.Fprintf(&left, "image %s ", image.Name())
	}
	err = h.client.containerd.ContentStore().Walk(ctx, func(info content.Info) error {
		_, err := fmt.Fprintf(&left, "blob %s ", info.Digest)
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	err = h.client.snapshots().Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		_, err := fmt.Fprintf(&left, "snapshot %s ", info.Name)
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return left.String()
}
