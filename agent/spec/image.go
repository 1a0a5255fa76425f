package spec

import (
	"path"
	"regexp"
	"strings"
	"sync"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// ArchiveScheme begins the reference of an image that lies in a file.
const ArchiveScheme = "oci-archive:"

// Image is a parsed image reference: a file, or a place in a registry.
type Image struct {
	Archive    string // absolute path of an OCI archive; all else is then empty
	Registry   string // "docker.io", "registry.example:5000"
	Repository string // "library/debian"
	Tag        string // "latest" when neither tag nor digest was written
	Digest     string // "sha256:…", or empty
}

// The grammar of github.com/distribution/reference, for messages that say which
// part is wrong.
var (
	registrySyntax   = compiled(`^(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?$`)
	repositorySyntax = compiled(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagSyntax        = compiled(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
	digestSyntax     = compiled(`^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$`)
)

// compiled defers an expression to its first use: the command line starts often
// and mostly parses none.
func compiled(expression string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}

const maxRepository = 255 // letters of registry and repository together, by the distribution specification

// ParseImage reads a reference as docker and containerd do ("debian" is
// docker.io/library/debian:latest), or "oci-archive:/absolute/path.tar".
func ParseImage(text string) (Image, error) {
	if file, is := strings.CutPrefix(text, ArchiveScheme); is {
		return parseArchive(text, file)
	}
	return parseReference(text)
}

func imageProblem(text, why string) (Image, error) {
	return Image{}, fault.New(fault.Invalid, "image "+quote(text), "%s", why).
		WithHint("write registry/name:tag or oci-archive:/absolute/path.tar")
}

func parseArchive(text, file string) (Image, error) {
	const longest = 4095 // PATH_MAX less the end mark
	switch {
	case strings.ContainsFunc(file, func(r rune) bool { return isControl(r) || r == '\n' || r == '\t' || r == '\r' }):
		return imageProblem(text, "the path has a control character")
	case !path.IsAbs(file):
		return imageProblem(text, "the path is not absolute")
	case path.Clean(file) != file || file == "/":
		return imageProblem(text, `the path has "..", "." or empty parts`)
	case len(file) > longest:
		return imageProblem(text, "the path is too long")
	}
	return Image{Archive: file}, nil
}

func parseReference(text string) (Image, error) {
	rest, digest, hasDigest := strings.Cut(text, "@")
	if hasDigest && !digestSyntax().MatchString(digest) {
		return imageProblem(text, "the digest is not sha256: or sha512: and its hexadecimal digits")
	}
	name, tag := rest, ""
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') {
		name, tag = rest[:i], rest[i+1:]
		if !tagSyntax().MatchString(tag) {
			return imageProblem(text, "the tag is not made of letters, digits, _ . and -")
		}
	}
	registry, repository := splitRegistry(name)
	switch {
	case !registrySyntax().MatchString(registry):
		return imageProblem(text, "the registry is not a host name")
	case !repositorySyntax().MatchString(repository):
		return imageProblem(text, "the name is not made of lower-case letters, digits and single separators")
	case len(registry)+len(repository) >= maxRepository:
		return imageProblem(text, "the name is too long")
	}
	if tag == "" && digest == "" {
		tag = "latest"
	}
	return Image{Registry: registry, Repository: repository, Tag: tag, Digest: digest}, nil
}

// splitRegistry applies Docker Hub's short forms. Only a first part that looks
// like a host is one.
func splitRegistry(name string) (registry, repository string) {
	first, rest, slashed := strings.Cut(name, "/")
	if slashed && (strings.ContainsAny(first, ".:[") || first == "localhost") {
		registry, repository = first, rest
	} else {
		registry, repository = "docker.io", name
	}
	if registry == "index.docker.io" {
		registry = "docker.io"
	}
	if registry == "docker.io" && !strings.Contains(repository, "/") {
		repository = "library/" + repository
	}
	return registry, repository
}

// String is the full form, which ParseImage reads back to the same value and
// containerd takes as a name.
func (i Image) String() string {
	if i.Archive != "" {
		return ArchiveScheme + i.Archive
	}
	text := i.Registry + "/" + i.Repository
	if i.Tag != "" {
		text += ":" + i.Tag
	}
	if i.Digest != "" {
		text += "@" + i.Digest
	}
	return text
}
