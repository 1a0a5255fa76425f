package runtime

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	goruntime "runtime"
	"sync"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/image-spec/identity"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// What an image says of its size is its author's word: gzip's own length is
// modulo 4 GiB and of the last member alone, and a sparse file of a petabyte is
// a kilobyte of tar. So the very bytes that containerd will unpack are counted
// first, header by header, and nothing is written of what does not fit.

// tally is what layers take on the disk, and what it has free.
type tally struct {
	mu                   sync.Mutex
	bytes, files         int64
	freeBytes, freeFiles int64
	block                int64
}

// errFull ends a count.
var errFull = errors.New("more than is free")

// fitsUnpacked refuses an image whose layers need more bytes or files than the
// disk has free, those that are unpacked already left out.
func (c *Client) fitsUnpacked(ctx context.Context, what string, image containerd.Image, layers []imagespec.Descriptor) error {
	missing, err := c.packed(ctx, image, layers)
	if err != nil {
		return unpackFault(what, err)
	}
	t, err := c.newTally()
	if err != nil {
		return err
	}
	counts, ctx := errgroup.WithContext(ctx)
	counts.SetLimit(goruntime.GOMAXPROCS(0))
	for _, layer := range missing {
		counts.Go(func() error { return c.count(ctx, layer, t) })
	}
	err = counts.Wait()
	if !errors.Is(err, errFull) {
		return unpackFault(what, err)
	}
	return fault.New(fault.Exhausted, what, "unpacked it needs at least %s in %d files, %s in %d files are free",
		size(t.bytes), t.files, size(t.freeBytes), t.freeFiles).WithHint("gpuhost image prune")
}

// packed are the layers of which no snapshot has been made yet.
func (c *Client) packed(ctx context.Context, image containerd.Image, layers []imagespec.Descriptor) ([]imagespec.Descriptor, error) {
	diffs, err := image.RootFS(ctx)
	if err != nil {
		return nil, err
	}
	if len(diffs) != len(layers) {
		return nil, fmt.Errorf("it has %d layers and names %d: %w", len(layers), len(diffs), errdefs.ErrInvalidArgument)
	}
	var missing []imagespec.Descriptor
	for i, layer := range layers {
		_, err := c.snapshots().Stat(ctx, identity.ChainID(diffs[:i+1]).String())
		if err != nil && !errdefs.IsNotFound(err) {
			return nil, err
		}
		if err != nil {
			missing = append(missing, layer)
		}
	}
	return missing, nil
}

func (c *Client) newTally() (*tally, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(c.config.Root, &fs); err != nil {
		return nil, fmt.Errorf("read free space of %s: %w", c.config.Root, err)
	}
	t := &tally{freeBytes: int64(fs.Bavail) * fs.Bsize, freeFiles: int64(fs.Ffree), block: fs.Bsize}
	if fs.Files == 0 { // it makes inodes as they are needed
		t.freeFiles = math.MaxInt64
	}
	return t, nil
}

// count adds up one layer.
func (c *Client) count(ctx context.Context, layer imagespec.Descriptor, t *tally) error {
	blob, err := c.containerd.ContentStore().ReaderAt(ctx, layer)
	if err != nil {
		return err
	}
	defer blob.Close()
	plain, end, err := decompress(content.NewReader(blob))
	if err != nil {
		return fmt.Errorf("decompress layer %s: %w", layer.Digest, err)
	}
	defer end()
	for entries := tar.NewReader(plain); ; {
		entry, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read layer %s: %w", layer.Digest, err)
		}
		if err := t.add(entry); err != nil {
			return err
		}
	}
}

func (t *tally) add(entry *tar.Header) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if entry.Typeflag != tar.TypeLink {
		t.files++
	}
	if entry.Size > math.MaxInt64-t.bytes-t.block {
		t.bytes = math.MaxInt64
		return errFull
	}
	t.bytes += (entry.Size + t.block - 1) / t.block * t.block
	if t.bytes > t.freeBytes || t.files > t.freeFiles {
		return errFull
	}
	return nil
}

// readAhead is how much of a blob is asked of containerd at once.
const readAhead = 1 << 20

// decompress looks at what a layer is, as containerd does, not at what it is
// called. Unlike containerd's own it starts no program.
func decompress(blob io.Reader) (plain io.Reader, end func(), err error) {
	ahead := bufio.NewReaderSize(blob, readAhead)
	start, err := ahead.Peek(10)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	switch compression.DetectCompression(start) {
	case compression.Gzip:
		r, err := gzip.NewReader(ahead)
		return r, func() {}, err
	case compression.Zstd:
		r, err := zstd.NewReader(ahead, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, nil, err
		}
		return r, r.Close, nil
	}
	return ahead, func() {}, nil
}
