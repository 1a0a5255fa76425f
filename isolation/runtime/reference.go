package runtime

import (
	"path"
	"strings"

	"github.com/distribution/reference"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// imageName is the name an image goes by in a tenant's store: the reference
// with registry and tag spelled out, or the archive's path with its prefix.
func imageName(ref string) (name string, archive string, err error) {
	if file, is := strings.CutPrefix(ref, spec.ArchiveScheme); is {
		if !path.IsAbs(file) || path.Clean(file) != file || strings.ContainsFunc(file, isControl) {
			return "", "", fault.New(fault.Invalid, "read image reference", "%.200q is not an absolute, clean path", file)
		}
		return ref, file, nil
	}
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return "", "", fault.New(fault.Invalid, "read image reference", "%.200q: %w", ref, err)
	}
	return named.String(), "", nil
}

// registryOf is the host and port that a spelled-out name is pulled from.
func registryOf(name string) string {
	host, _, _ := strings.Cut(name, "/")
	if host == "docker.io" {
		return "registry-1.docker.io"
	}
	return host
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }
