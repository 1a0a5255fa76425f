// Package runtime_test proves that the runtime we ship is upstream's: each
// binary was linked from exactly the module versions that upstream's own go.mod
// names, and with the parts isolation rests on.
package runtime_test

import (
	"debug/buildinfo"
	"debug/elf"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

func TestMain(m *testing.M) { hosttest.Main(m) }

// binaries are what `make runtime` builds, each with the module it is from and
// the folder here that requires that module.
var binaries = []struct{ name, module, folder string }{
	{"containerd", "github.com/containerd/containerd/v2", "containerd"},
	{"containerd-shim-runc-v2", "github.com/containerd/containerd/v2", "containerd"},
	{"runc", "github.com/opencontainers/runc", "runc"},
}

func TestDependenciesAreUpstreams(t *testing.T) {
	hosttest.Need(t, "go")
	dir := hosttest.RuntimeDir(t)
	for _, b := range binaries {
		t.Run(b.name, func(t *testing.T) {
			info, err := buildinfo.ReadFile(filepath.Join(dir, b.name))
			if err != nil {
				t.Fatal(err)
			}
			want := upstreamRequirements(t, b.folder, b.module)
			linked := 0
			for _, dep := range info.Deps {
				if dep.Replace != nil {
					t.Errorf("%s is replaced by %s", dep.Path, dep.Replace.Path)
				}
				if dep.Path == b.module {
					continue
				}
				linked++
				if want[dep.Path] != dep.Version {
					t.Errorf("%s: linked %s, upstream's go.mod says %q", dep.Path, dep.Version, want[dep.Path])
				}
			}
			if linked == 0 {
				t.Error("no dependency is recorded in the binary")
			}
		})
	}
}

// upstreamRequirements are the versions in the go.mod of module, as it lies in
// the module cache.
func upstreamRequirements(t *testing.T, folder, module string) map[string]string {
	t.Helper()
	gomod := strings.TrimSpace(run(t, folder, "go", "list", "-m", "-f", "{{.GoMod}}", module))
	list := run(t, folder, "go", "mod", "edit", "-print", gomod)
	versions := map[string]string{}
	for line := range strings.Lines(list) {
		line, _, _ = strings.Cut(line, "//")
		fields := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(fields) == 2 && strings.HasPrefix(fields[1], "v") {
			versions[fields[0]] = fields[1]
		}
	}
	return versions
}

func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return string(out)
}

// A tenant's start must not depend on the host's C library, and runc without
// libseccomp would start containers without a filter.
func TestRuncIsStaticWithSeccomp(t *testing.T) {
	hosttest.Need(t)
	runc := filepath.Join(hosttest.RuntimeDir(t), "runc")
	file, err := elf.Open(runc)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if libraries, err := file.ImportedLibraries(); err != nil || len(libraries) > 0 {
		t.Errorf("runc needs libraries %q (%v)", libraries, err)
	}
	if file.Type != elf.ET_DYN {
		t.Errorf("runc is %s, want a position-independent executable", file.Type)
	}
	if out := run(t, ".", runc, "--version"); !strings.Contains(out, "libseccomp: ") {
		t.Errorf("runc --version does not name libseccomp:\n%s", out)
	}
}
