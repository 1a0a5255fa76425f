package ociimage_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gpuhost/gpuhost/packaging/lab/ociimage"
)

func hostile() ociimage.Spec {
	return ociimage.Spec{
		Ref:          "evil:1",
		Architecture: "s390x",
		Config:       v1.ImageConfig{User: "99999999999", WorkingDir: "/proc/self/fd/7", Env: []string{"LD_PRELOAD=/x"}},
		Layers: []ociimage.Layer{
			{ociimage.Dir("etc", 0o755), ociimage.Symlink("etc/passwd", "/host/etc/shadow")},
			{{Header: tar.Header{Typeflag: tar.TypeChar, Name: "../dev/nvidia0", Devmajor: 195}}},
		},
	}
}

func TestSameSpecGivesSameBytes(t *testing.T) {
	if !bytes.Equal(archive(t, hostile()), archive(t, hostile())) {
		t.Error("two archives of one spec differ")
	}
}

func TestEveryDescriptorNamesABlobOfItsSize(t *testing.T) {
	files := unpack(t, archive(t, hostile()))
	index := decode[v1.Index](t, files["index.json"])
	manifest := decode[v1.Manifest](t, blob(t, files, index.Manifests[0]))
	blob(t, files, manifest.Config)
	for _, layer := range manifest.Layers {
		blob(t, files, layer)
	}
	if got := index.Manifests[0].Annotations[v1.AnnotationRefName]; got != "evil:1" {
		t.Errorf("ref name %q", got)
	}
}

func TestConfigIsWrittenAsItStands(t *testing.T) {
	files := unpack(t, archive(t, hostile()))
	index := decode[v1.Index](t, files["index.json"])
	manifest := decode[v1.Manifest](t, blob(t, files, index.Manifests[0]))
	image := decode[v1.Image](t, blob(t, files, manifest.Config))
	if diff := cmp.Diff(hostile().Config, image.Config); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if image.Architecture != "s390x" || image.OS != "linux" {
		t.Errorf("platform %s/%s", image.OS, image.Architecture)
	}
	device := unpackHeaders(t, blob(t, files, manifest.Layers[1]))[0]
	if device.Name != "../dev/nvidia0" || device.Typeflag != tar.TypeChar || device.Devmajor != 195 {
		t.Errorf("device entry %+v", device)
	}
}

func archive(t *testing.T, spec ociimage.Spec) []byte {
	t.Helper()
	body, err := spec.Archive()
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// blob checks a descriptor against the blob it names and returns that.
func blob(t *testing.T, files map[string][]byte, desc v1.Descriptor) []byte {
	t.Helper()
	body, ok := files["blobs/sha256/"+desc.Digest.Encoded()]
	if !ok || int64(len(body)) != desc.Size || digest.FromBytes(body) != desc.Digest {
		t.Fatalf("descriptor %+v: blob present %t, %d bytes, digest %s", desc, ok, len(body), digest.FromBytes(body))
	}
	return body
}

func unpack(t *testing.T, body []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	r := tar.NewReader(bytes.NewReader(body))
	for {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[header.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

func unpackHeaders(t *testing.T, body []byte) []*tar.Header {
	t.Helper()
	var headers []*tar.Header
	r := tar.NewReader(bytes.NewReader(body))
	for {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return headers
		}
		if err != nil {
			t.Fatal(err)
		}
		headers = append(headers, header)
	}
}

func decode[T any](t *testing.T, body []byte) T {
	t.Helper()
	var value T
	if err := json.Unmarshal(body, &value); err != nil {
		t.Fatal(err)
	}
	return value
}
