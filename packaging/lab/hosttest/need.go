package hosttest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Need skips a test that cannot run here: outside [Main]'s namespaces, or
// without one of the tools, which are looked up in PATH. Where CI=true what is
// missing is an error; -short skips in any case.
func Need(t testing.TB, tools ...string) {
	t.Helper()
	if testing.Short() {
		t.Skip("host tier: left out by -short")
	}
	if !inside() {
		Missing(t, "host tier: needs root and hosttest.Main in TestMain")
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			Missing(t, "host tier: needs "+tool+" (make deps)")
		}
	}
}

// RuntimeDir is the folder with containerd, containerd-shim-runc-v2 and runc:
// GPUHOST_RUNTIME, else build/runtime/bin of the repository.
func RuntimeDir(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("GPUHOST_RUNTIME")
	if dir == "" {
		dir = filepath.Join(Root(t), "build", "runtime", "bin")
	}
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "runc"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			Missing(t, "host tier: no "+name+" in "+dir+" (make runtime)")
		}
	}
	return dir
}

// Root is the top folder of the repository.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatalf("find working directory: %v", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the working directory")
		}
		dir = up
	}
}

// Missing passes over a test for lack of what it needs, and says so. Where CI=true that
// is an error.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}
