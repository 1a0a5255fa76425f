package hosttest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/packaging/lab/ociimage"
)

// commandNames are the commands whose program is not named after its folder.
var commandNames = map[string]string{
	".":                                  "gpuhost",
	"./drivers/nvml/helper":              "nvml-helper",
	"./isolation/warden/services/daemon": "warden-services",
}

// Build compiles one of this module's commands without cgo ("./isolation/warden")
// and returns the binary, named as when installed; all lie in one folder. Tags
// are build tags, and such a binary lies in a folder of its own. Go's cache
// makes a second call cheap.
func Build(t testing.TB, pkg string, tags ...string) string {
	t.Helper()
	return build(t, pkg, "CGO_ENABLED=0", tags)
}

// BuildCgo is [Build] with cgo, for the one command that needs it.
func BuildCgo(t testing.TB, pkg string, tags ...string) string {
	t.Helper()
	return build(t, pkg, "CGO_ENABLED=1", tags)
}

func build(t testing.TB, pkg, cgo string, tags []string) string {
	t.Helper()
	root := Root(t)
	dir := filepath.Join(root, "build", "test", strings.Join(tags, "-"))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatalf("make %s: %v", dir, err)
	}
	defer lock(t, dir)()
	name := commandNames[pkg]
	if name == "" {
		name = filepath.Base(pkg)
	}
	out := filepath.Join(dir, name)
	cmd := exec.Command("go", "build", "-trimpath", "-tags", strings.Join(tags, ","), "-o", out, pkg)
	cmd.Dir = root
	// The namespace has no way out: say so at once instead of waiting for it.
	cmd.Env = append(os.Environ(), cgo, "GOPROXY=off")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v (modules missing? make deps)\n%s", pkg, err, text)
	}
	return out
}

// lock keeps test binaries of several packages from writing one file at once.
func lock(t testing.TB, dir string) (unlock func()) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatalf("open build lock: %v", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatalf("take build lock: %v", err)
	}
	return func() { f.Close() }
}

// BusyboxArchive writes an OCI archive of busybox, after the edits, and returns
// its path.
//
//	hosttest.BusyboxArchive(t, func(s *ociimage.Spec) { s.Config.User = "99999999999" })
func BusyboxArchive(t testing.TB, edits ...func(*ociimage.Spec)) string {
	t.Helper()
	const busybox = "/bin/busybox"
	if _, err := os.Stat(busybox); err != nil {
		Missing(t, "host tier: needs busybox-static (make deps)")
	}
	spec, err := ociimage.Busybox(busybox)
	if err != nil {
		t.Fatal(err)
	}
	for _, edit := range edits {
		edit(&spec)
	}
	return WriteArchive(t, spec)
}

// WriteArchive writes an image's archive and returns its path.
func WriteArchive(t testing.TB, spec ociimage.Spec) string {
	t.Helper()
	archive, err := spec.Archive()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(file, archive, 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}
