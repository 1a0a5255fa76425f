// Package ociimage makes small container images without a registry or a
// builder: an OCI image layout in one tar, the same bytes for the same [Spec].
//
// A Spec is written to the image as it stands, nonsense included, so that tests
// can make images no builder would. It knows nothing of containerd.
//
//	spec, err := ociimage.Busybox("/bin/busybox")
//	spec.Cmd = []string{"httpd", "-f", "-p", "8080"}
//	archive, err := spec.Archive()
package ociimage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	_ "crypto/sha256" // go-digest asks for it by name
	"encoding/json"
	"fmt"
	"path"
	"runtime"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Spec says what an image holds.
type Spec struct {
	// Ref is the annotation org.opencontainers.image.ref.name; "" leaves it out.
	Ref          string
	Architecture string // "" is this machine's
	OS           string // "" is linux

	// Config is written as the image's own.
	Config v1.ImageConfig

	// Layers are stacked in order.
	Layers []Layer
	// Gzip compresses them, each with an empty member at its end: the size that
	// gzip keeps in its last four bytes is then 0.
	Gzip bool
}

// Layer is the files of one layer, in the order they are written.
type Layer []Entry

// Entry is one tar record of a layer. Size is taken from Body; times are zero.
type Entry struct {
	tar.Header
	Body []byte
	// patch changes the header's block once it is written.
	patch func(header []byte)
}

// Dir is a directory of a layer.
func Dir(name string, mode int64) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}}
}

// File is a regular file of a layer.
func File(name string, mode int64, body string) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, Body: []byte(body)}
}

// Symlink is a symbolic link of a layer.
func Symlink(name, target string) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}}
}

// Archive is the image as an OCI image layout in a tar.
func (s Spec) Archive() ([]byte, error) {
	l := layout{refName: s.Ref}
	var diffIDs []digest.Digest
	var layers []v1.Descriptor
	for i, layer := range s.Layers {
		body, err := layer.tar()
		if err != nil {
			return nil, fmt.Errorf("write layer %d: %w", i, err)
		}
		diffIDs = append(diffIDs, digest.FromBytes(body))
		mediaType := v1.MediaTypeImageLayer
		if s.Gzip {
			mediaType, body = v1.MediaTypeImageLayerGzip, gzipped(body)
		}
		layers = append(layers, l.blob(mediaType, body))
	}
	config, err := l.json(v1.MediaTypeImageConfig, v1.Image{
		Platform: s.platform(),
		Config:   s.Config,
		RootFS:   v1.RootFS{Type: "layers", DiffIDs: diffIDs},
	})
	if err != nil {
		return nil, err
	}
	manifest, err := l.json(v1.MediaTypeImageManifest, v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageManifest,
		Config:    config,
		Layers:    layers,
	})
	if err != nil {
		return nil, err
	}
	platform := s.platform()
	manifest.Platform = &platform
	return l.archive(manifest)
}

func (s Spec) platform() v1.Platform {
	p := v1.Platform{Architecture: s.Architecture, OS: s.OS}
	if p.Architecture == "" {
		p.Architecture = runtime.GOARCH
	}
	if p.OS == "" {
		p.OS = "linux"
	}
	return p
}

func (l Layer) tar() ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range l {
		header := e.Header
		header.Size = int64(len(e.Body))
		if err := w.WriteHeader(&header); err != nil {
			return nil, fmt.Errorf("add %q: %w", header.Name, err)
		}
		if e.patch != nil {
			e.patch(buf.Bytes()[buf.Len()-headerSize:])
		}
		if _, err := w.Write(e.Body); err != nil {
			return nil, fmt.Errorf("add %q: %w", header.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("end layer: %w", err)
	}
	return buf.Bytes(), nil
}

func gzipped(body []byte) []byte {
	var out bytes.Buffer
	for _, member := range [][]byte{body, nil} {
		w := gzip.NewWriter(&out) // writing to memory does not fail
		_, _ = w.Write(member)
		_ = w.Close()
	}
	return out.Bytes()
}

// layout collects the files of an image layout.
type layout struct {
	refName string
	files   Layer
}

func (l *layout) blob(mediaType string, body []byte) v1.Descriptor {
	d := digest.FromBytes(body)
	name := path.Join(v1.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
	l.files = append(l.files, File(name, 0o644, string(body)))
	return v1.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(body))}
}

func (l *layout) json(mediaType string, value any) (v1.Descriptor, error) {
	body, err := json.Marshal(value)
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("encode %s: %w", mediaType, err)
	}
	return l.blob(mediaType, body), nil
}

func (l *layout) archive(manifest v1.Descriptor) ([]byte, error) {
	if l.refName != "" {
		manifest.Annotations = map[string]string{v1.AnnotationRefName: l.refName}
	}
	index, err := json.Marshal(v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageIndex,
		Manifests: []v1.Descriptor{manifest},
	})
	if err != nil {
		return nil, fmt.Errorf("encode index: %w", err)
	}
	marker, err := json.Marshal(v1.ImageLayout{Version: v1.ImageLayoutVersion})
	if err != nil {
		return nil, fmt.Errorf("encode layout marker: %w", err)
	}
	head := Layer{
		File(v1.ImageLayoutFile, 0o644, string(marker)),
		File(v1.ImageIndexFile, 0o644, string(index)),
	}
	return append(head, l.files...).tar()
}
