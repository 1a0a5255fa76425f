package runtime

import (
	"bytes"
	"context"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

// counted is a content store that counts how often it is asked to read.
type counted struct {
	content.Store
	blobs map[digest.Digest][]byte
	reads int
}

func (c *counted) ReaderAt(_ context.Context, desc imagespec.Descriptor) (content.ReaderAt, error) {
	c.reads++
	text, there := c.blobs[desc.Digest]
	if !there {
		return nil, errdefs.ErrNotFound
	}
	return inMemory{bytes.NewReader(text)}, nil
}

func TestSmallBlobsAreReadOnce(t *testing.T) {
	for _, row := range []struct {
		name    string
		size    int
		readers []string // by tenant
		reads   int
	}{
		{"a manifest", 500, []string{"a", "a", "a"}, 1},
		{"as large as is kept", smallBlob, []string{"a", "a"}, 1},
		{"a layer", smallBlob + 1, []string{"a", "a"}, 2},
		{"each tenant's own", 500, []string{"a", "b", "a", "b"}, 2},
	} {
		t.Run(row.name, func(t *testing.T) {
			text := bytes.Repeat([]byte{'x'}, row.size)
			desc := imagespec.Descriptor{Digest: digest.FromBytes(text)}
			store := &counted{blobs: map[digest.Digest][]byte{desc.Digest: text}}
			b := newBlobs()
			b.Store = store
			for _, tenant := range row.readers {
				got, err := content.ReadBlob(namespaces.WithNamespace(t.Context(), tenant), b, desc)
				if err != nil || !bytes.Equal(got, text) {
					t.Fatalf("read %d bytes (%v), want %d", len(got), err, len(text))
				}
			}
			if store.reads != row.reads {
				t.Errorf("containerd was asked %d times, want %d", store.reads, row.reads)
			}
		})
	}
}

func TestWhatIsNotThereIsAskedForAgain(t *testing.T) {
	text := []byte("{}")
	desc := imagespec.Descriptor{Digest: digest.FromBytes(text)}
	store := &counted{blobs: map[digest.Digest][]byte{}}
	b := newBlobs()
	b.Store = store
	if _, err := content.ReadBlob(t.Context(), b, desc); !errdefs.IsNotFound(err) {
		t.Fatalf("a blob that is not there: %v", err)
	}
	store.blobs[desc.Digest] = text
	if _, err := content.ReadBlob(t.Context(), b, desc); err != nil {
		t.Error(err)
	}
}

func TestKeptBlobsAreBounded(t *testing.T) {
	b := newBlobs()
	for i := range 1000 {
		text := bytes.Repeat([]byte{byte(i), byte(i >> 8)}, smallBlob/2)
		b.keep(blobKey{"a", digest.FromBytes(text)}, text)
		if held := len(b.kept) * smallBlob; held > keptBlobs || held != b.size {
			t.Fatalf("%d bytes are kept, %d counted, want at most %d", held, b.size, keptBlobs)
		}
	}
}
