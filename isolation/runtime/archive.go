package runtime

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/isolation"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// importFile imports an archive that lies on the host.
func (c *Client) importFile(ctx context.Context, tenant, name, file string, report plan.Report) (isolation.Image, error) {
	what := "import image " + name
	f, size, err := openRegular(file)
	if err != nil {
		return isolation.Image{}, fault.Wrap(fault.NotFound, what, err)
	}
	defer f.Close()
	if err := c.fits(what, size); err != nil {
		return isolation.Image{}, err
	}
	counted := newMeter(report, size)
	return c.importReader(ctx, tenant, name, counted.reader(f))
}

// openRegular opens a file to read and says how long it is. Only a handle that can
// do nothing is taken of what turns out to be something else: opening a device may
// act on it, opening a FIFO waits for ever. A link leads who may write to its
// folder anywhere, as root.
func openRegular(file string) (_ *os.File, size int64, err error) {
	handle, err := unix.Open(file, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, 0, &fs.PathError{Op: "open", Path: file, Err: err}
	}
	defer unix.Close(handle)
	var stat unix.Stat_t
	if err := unix.Fstat(handle, &stat); err != nil {
		return nil, 0, &fs.PathError{Op: "stat", Path: file, Err: err}
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, 0, fault.New(fault.Invalid, "open "+file, "it is no regular file")
	}
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", handle))
	return f, stat.Size, err
}

// ImportImage imports an OCI or docker archive of size bytes, negative where that
// is not known, into the tenant's store under ref and unpacks it.
func (c *Client) ImportImage(ctx context.Context, tenant, ref string, size int64, r io.Reader) (isolation.Image, error) {
	name, _, err := imageName(ref)
	if err != nil {
		return isolation.Image{}, err
	}
	what := "import image " + name
	if err := c.fits(what, size); err != nil {
		return isolation.Image{}, err
	}
	return c.importReader(ctx, tenant, name, &wary{Reader: r, fits: func(need int64) error { return c.fits(what, need) }})
}

// waryStep is how far a reader goes between two looks at the disk, and what it
// leaves free there.
const waryStep = 16 << 20

// wary reads what is written to the disk and stops before that is full: the length
// of a stream is known at its end, and others write too.
type wary struct {
	io.Reader
	fits func(need int64) error
	left int64 // bytes until the next look
}

// Read implements io.Reader.
func (w *wary) Read(b []byte) (int, error) {
	if w.left <= 0 {
		if err := w.fits(waryStep); err != nil {
			return 0, err
		}
		w.left = waryStep
	}
	n, err := w.Reader.Read(b)
	w.left -= int64(n)
	return n, err
}

func (c *Client) importReader(ctx context.Context, tenant, name string, r io.Reader) (_ isolation.Image, err error) {
	what := "import image " + name
	ctx, release, err := c.leased(c.tenant(ctx, tenant))
	if err != nil {
		return isolation.Image{}, wrap(what, err)
	}
	defer func() { release(err) }()
	store := c.containerd.ContentStore()
	index, err := archive.ImportIndex(ctx, store, r)
	if fault.Is(err, fault.Exhausted) {
		return isolation.Image{}, err
	}
	if err != nil {
		return isolation.Image{}, unpackFault(what, fmt.Errorf("not a complete image archive: %w", err))
	}
	children := images.FilterPlatforms(images.ChildrenHandler(store), platforms.Default())
	if err := images.Walk(ctx, images.SetChildrenLabels(store, children), index); err != nil {
		return isolation.Image{}, unpackFault(what, err)
	}
	image, err := c.recordImage(ctx, name, index)
	if err != nil {
		return isolation.Image{}, wrap(what, err)
	}
	return c.unpack(ctx, name, image)
}

// recordImage names target, whatever names the archive itself wants: those
// could be of the tenant's other images.
func (c *Client) recordImage(ctx context.Context, name string, target imagespec.Descriptor) (containerd.Image, error) {
	record := images.Image{Name: name, Target: target}
	store := c.containerd.ImageService()
	made, err := store.Create(ctx, record)
	if errdefs.IsAlreadyExists(err) {
		made, err = store.Update(ctx, record, "target")
	}
	if err != nil {
		return nil, err
	}
	return containerd.NewImage(c.containerd, made), nil
}
