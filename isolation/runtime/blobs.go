package runtime

import (
	"bytes"
	"context"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A start reads an image's index, manifest and configuration seven times over, each
// time in two calls to containerd. What a digest names never changes.
const (
	smallBlob = 64 << 10 // what is larger is read when it is asked for
	keptBlobs = 4 << 20  // of all that is kept; then all is let go
)

// blobs is a content store that reads what is small once. What one tenant has read
// is not there for another.
type blobs struct {
	content.Store // set before it is used

	mu   sync.Mutex
	kept map[blobKey][]byte
	size int
}

type blobKey struct {
	namespace string
	digest    digest.Digest
}

func newBlobs() *blobs { return &blobs{kept: make(map[blobKey][]byte)} }

// ReaderAt implements content.Provider.
func (b *blobs) ReaderAt(ctx context.Context, desc imagespec.Descriptor) (content.ReaderAt, error) {
	namespace, _ := namespaces.Namespace(ctx)
	key := blobKey{namespace, desc.Digest}
	if text, kept := b.get(key); kept {
		return inMemory{bytes.NewReader(text)}, nil
	}
	blob, err := b.Store.ReaderAt(ctx, desc)
	if err != nil || blob.Size() > smallBlob {
		return blob, err
	}
	defer blob.Close()
	text := make([]byte, blob.Size())
	if _, err := blob.ReadAt(text, 0); err != nil && len(text) > 0 {
		return nil, err
	}
	b.keep(key, text)
	return inMemory{bytes.NewReader(text)}, nil
}

func (b *blobs) get(key blobKey) ([]byte, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	text, kept := b.kept[key]
	return text, kept
}

func (b *blobs) keep(key blobKey, text []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.size += len(text); b.size > keptBlobs {
		clear(b.kept)
		b.size = len(text)
	}
	b.kept[key] = text
}

// inMemory is a blob that is kept.
type inMemory struct{ *bytes.Reader }

// Close implements io.Closer.
func (inMemory) Close() error { return nil }
