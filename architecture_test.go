package main_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// These tests keep docs/architecture.md true: who may import whom. What a file
// may look like is in shape_test.go.

const module = "github.com/gpuhost/gpuhost/"

// rooms think about one thing each; what two of them share is in agent.
var rooms = []string{"drivers", "isolation", "network"}

// roomVocabulary is what a room may import from outside itself.
var roomVocabulary = []string{"agent/fault", "agent/frame", "agent/plan", "agent/spec", "drivers/gpu"}

// beyondVocabulary are the packages of rooms that may import more, and why.
var beyondVocabulary = map[string][]string{
	"drivers/nvml/helper": {"agent/sim"}, // pretends to be the hardware with --sim
}

// pure packages compute. They read no file, open no socket and start nothing,
// and import only each other.
var pure = []string{
	"agent/fault", "agent/frame", "agent/plan", "agent/spec",
	"drivers", "drivers/gpu", "drivers/catalog",
	"isolation", "isolation/cdi", "isolation/oci",
	"network", "network/policy", "network/ruleset",
}

// touching are the parts of the standard library that pure packages do without,
// subfolders included.
var touching = []string{"log", "net", "os", "runtime/debug", "syscall"}

// harmless are names that only compute, or are types, in packages that touch.
var harmless = map[string][]string{
	"log/slog":  {"*"}, // the injected logger
	"net":       {"HardwareAddr", "ParseMAC"},
	"net/http":  {"Status*"},
	"net/netip": {"*"},
	"net/url":   {"*"},
	"os":        {"File"}, // ports hand over what others opened
}

// pureMay are the foreign modules of pure packages: data, types, constants.
var pureMay = map[string][]string{
	"agent/spec":    {"go.yaml.in/yaml/v3"},
	"isolation/cdi": {"tags.cncf.io/container-device-interface"},
	"isolation/oci": {"github.com/containerd/containerd/v2/contrib/seccomp", "github.com/opencontainers", "golang.org/x/sys/unix"},
}

// importers names, for each foreign module (or part of one), the packages
// that may import it: one wrapper, so that it can be replaced. Subfolders are
// included; the longest matching name counts.
var importers = map[string][]string{
	"github.com/NVIDIA/go-nvlib":                              {"drivers/nvml/helper"},
	"github.com/NVIDIA/go-nvml":                               {"drivers/nvml/helper"},
	"github.com/NVIDIA/nvidia-container-toolkit":              {"drivers/nvml/helper"},
	"github.com/cilium/ebpf":                                  {"isolation/cgroup"},
	"github.com/containerd/":                                  {"isolation/runtime"},
	"github.com/containerd/containerd/v2/contrib/seccomp":     {"isolation/oci"},
	"github.com/containerd/fifo":                              {"isolation/runtime", "isolation/warden"},
	"github.com/coreos/go-systemd":                            {"systemd"},
	"github.com/cyphar/filepath-securejoin":                   {"isolation"},
	"github.com/distribution/reference":                       {"isolation/runtime"},
	"github.com/godbus/dbus":                                  {"systemd"},
	"github.com/google/nftables":                              {"network/nft"},
	"github.com/google/renameio":                              {"agent", "drivers", "isolation", "network"}, // atomic writes are everybody's
	"github.com/klauspost/compress":                           {"isolation/runtime"},
	"github.com/mdlayher/netlink":                             {"network/nft", "network/flow"}, // both libraries hand out its errors
	"github.com/miekg/dns":                                    {"isolation/warden/services"},
	"github.com/moby/sys":                                     {"isolation/runtime", "isolation/audit", "network/netns"},
	"github.com/opencontainers/cgroups":                       {"isolation/cgroup"},
	"github.com/opencontainers/go-digest":                     {"isolation/runtime", "packaging/lab/ociimage"},
	"github.com/opencontainers/image-spec":                    {"isolation/runtime", "isolation/oci", "packaging/lab/ociimage"},
	"github.com/opencontainers/runtime-spec":                  {"isolation"},
	"github.com/pelletier/go-toml":                            {"agent/config"},
	"github.com/prometheus/client_golang":                     {"agent/telemetry"},
	"github.com/prometheus/client_golang/prometheus/promhttp": {"agent/telemetry", "agent/service"},
	"github.com/prometheus/client_model":                      {"agent/telemetry"},
	"github.com/prometheus/procfs":                            {"agent/telemetry"},
	"github.com/sirupsen/logrus":                              {"isolation/runtime"}, // what the containerd client logs through
	"github.com/spf13/cobra":                                  {"agent/cli", "packaging/man"},
	"github.com/ti-mo/":                                       {"network/flow"},
	"github.com/vishvananda/netlink":                          {"network/link", "network/netns"},
	"github.com/vishvananda/netns":                            {"network/link", "network/netns"},
	"go.etcd.io/bbolt":                                        {"agent/store"},
	"go.yaml.in/yaml":                                         {"agent/spec"},
	"golang.org/x/net":                                        {"isolation/warden/services"},
	"golang.org/x/sync":                                       {"agent", "drivers", "isolation", "network"}, // errgroup
	"golang.org/x/sys":                                        {"agent", "drivers", "isolation", "network", "packaging", "systemd"},
	"golang.org/x/term":                                       {"agent/cli"},
	"google.golang.org/grpc":                                  {"isolation/runtime"},
	"google.golang.org/protobuf":                              {"isolation/runtime"},
	"tags.cncf.io/container-device-interface":                 {"isolation/cdi", "drivers/nvml/helper"},
}

// testTools are foreign modules for tests only: files ending in _test.go,
// packages named …test, and packaging/.
var testTools = []string{
	"github.com/google/go-cmp", "github.com/google/go-containerregistry", "github.com/rogpeppe/go-internal",
	"go.uber.org/goleak", "pgregory.net/rapid",
}

// cliMay is what the command line may import: it reaches the daemon through
// agent/client only, as any other program would.
var cliMay = []string{
	"agent/api", "agent/client", "agent/config", "agent/fault", "agent/frame", "agent/plan", "agent/spec", "drivers/gpu",
}

func TestRoomsDoNotImportEachOther(t *testing.T) {
	for _, f := range productFiles(t) {
		room := f.room()
		if room == "" {
			continue
		}
		for _, imported := range f.own() {
			if within(imported, room) || within(imported, roomVocabulary...) || within(imported, beyondVocabulary[f.pkg]...) {
				continue
			}
			t.Errorf("%s imports %s: a room imports itself and %s; declare a port in %s/ports.go and let agent connect it",
				f.path, imported, strings.Join(roomVocabulary, ", "), room)
		}
	}
}

func TestPurePackagesTouchNothing(t *testing.T) {
	for _, f := range productFiles(t) {
		if !slices.Contains(pure, f.pkg) {
			continue
		}
		for _, imported := range f.imports {
			if own, isOwn := strings.CutPrefix(imported, module); isOwn {
				if !slices.Contains(pure, own) {
					t.Errorf("%s imports %s: a pure package imports pure packages only", f.path, own)
				}
				continue
			}
			const advice = "a pure package touches nothing; move that to a sub-package behind a port"
			if isForeign(imported) && !within(imported, pureMay[f.pkg]...) {
				t.Errorf("%s imports %s: %s", f.path, imported, advice)
			}
			if within(imported, touching...) {
				for _, name := range f.harmful(imported) {
					t.Errorf("%s uses %s.%s: %s", f.path, path.Base(imported), name, advice)
				}
			}
		}
	}
}

func TestForeignModulesHaveOneImporter(t *testing.T) {
	for _, f := range productFiles(t) {
		for _, imported := range f.imports {
			if !isForeign(imported) || within(imported, testTools...) {
				continue
			}
			name := longestPrefix(imported)
			switch {
			case name == "":
				t.Errorf("%s imports %s, which has no line in importers: say which package wraps it, and in the commit what it replaces", f.path, imported)
			case !within(f.pkg, importers[name]...):
				t.Errorf("%s imports %s: only %s may; use that package instead", f.path, imported, strings.Join(importers[name], ", "))
			}
		}
	}
}

func TestTestToolsStayInTests(t *testing.T) {
	for _, f := range productFiles(t) {
		if within(f.pkg, "packaging") || strings.HasSuffix(f.pkg, "test") {
			continue
		}
		for _, imported := range f.imports {
			own := strings.TrimPrefix(imported, module)
			if within(imported, testTools...) || own == "testing" || within(own, "packaging") || own != imported && strings.HasSuffix(own, "test") {
				t.Errorf("%s imports %s, which is for tests", f.path, imported)
			}
		}
	}
}

func TestCommandLineReachesTheDaemonThroughClientOnly(t *testing.T) {
	for _, f := range productFiles(t) {
		if f.pkg != "agent/cli" {
			continue
		}
		for _, imported := range f.own() {
			if !within(imported, cliMay...) {
				t.Errorf("%s imports %s: the command line knows %s; let main.go pass the rest in Hooks", f.path, imported, strings.Join(cliMay, ", "))
			}
		}
		if slices.Contains(f.imports, "net/http") {
			t.Errorf("%s imports net/http: requests are agent/client's", f.path)
		}
	}
}

// goFile is one parsed Go file.
type goFile struct {
	path    string // "network/nft/apply.go"
	pkg     string // "network/nft", "." at the top
	imports []string
	syntax  *ast.File
	fset    *token.FileSet
}

// room is the room the file stands in, or "".
func (f goFile) room() string {
	first, _, _ := strings.Cut(f.pkg, "/")
	if slices.Contains(rooms, first) {
		return first
	}
	return ""
}

// own are the imports from this module, without its name.
func (f goFile) own() []string {
	var own []string
	for _, imported := range f.imports {
		if rest, ok := strings.CutPrefix(imported, module); ok {
			own = append(own, rest)
		}
	}
	return own
}

func (f goFile) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }

// harmful are the names of an import that the file uses and harmless has not.
func (f goFile) harmful(imported string) []string {
	var names []string
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		selector, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		pkg, ok := selector.X.(*ast.Ident)
		if ok && pkg.Name == path.Base(imported) && !matchesAny(harmless[imported], selector.Sel.Name) {
			names = append(names, selector.Sel.Name)
		}
		return true
	})
	return names
}

func matchesAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		matched, err := path.Match(pattern, name)
		return matched && err == nil
	})
}

// productFiles are all Go files that are not tests.
func productFiles(t *testing.T) []goFile {
	t.Helper()
	return slices.DeleteFunc(allFiles(t), goFile.isTest)
}

// allFiles parses every Go file of the module, whatever its build tags.
func allFiles(t *testing.T) []goFile {
	t.Helper()
	var files []goFile
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && isOutside(name, entry):
			return filepath.SkipDir
		case entry.IsDir() || !strings.HasSuffix(name, ".go"):
			return nil
		}
		f, err := parse(name)
		files = append(files, f)
		return err
	})
	if err != nil {
		t.Fatalf("read the module's files: %v", err)
	}
	return files
}

// isOutside says whether a folder holds no files of this module: build output,
// test data, or a module of its own.
func isOutside(name string, entry fs.DirEntry) bool {
	if name == "." {
		return false
	}
	if name == "build" || entry.Name() == "testdata" || strings.HasPrefix(entry.Name(), ".") {
		return true
	}
	_, err := os.Stat(filepath.Join(name, "go.mod"))
	return err == nil
}

func parse(name string) (goFile, error) {
	fset := token.NewFileSet()
	syntax, err := parser.ParseFile(fset, name, nil, parser.ParseComments)
	if err != nil {
		return goFile{}, err
	}
	f := goFile{path: filepath.ToSlash(name), syntax: syntax, fset: fset}
	f.pkg = path.Dir(f.path)
	for _, spec := range syntax.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return goFile{}, err
		}
		f.imports = append(f.imports, imported)
	}
	return f, nil
}

// isForeign says whether an import is neither ours nor the standard library's.
func isForeign(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	return strings.Contains(first, ".") && !strings.HasPrefix(imported, module)
}

// within says whether name is one of the folders or lies below one.
func within(name string, folders ...string) bool {
	return slices.ContainsFunc(folders, func(folder string) bool {
		return name == folder || strings.HasPrefix(name, strings.TrimSuffix(folder, "/")+"/")
	})
}

func longestPrefix(imported string) string {
	var longest string
	for name := range importers {
		if within(imported, name) && len(name) > len(longest) {
			longest = name
		}
	}
	return longest
}
