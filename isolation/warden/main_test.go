package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/isolation/warden/fifo"
	"github.com/gpuhost/gpuhost/isolation/warden/launch"
	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

func TestMain(m *testing.M) { hosttest.Main(m) }

// nobody is whom wardens become in tests.
const nobody = 65534

// host is the folders of one pretended host with a launcher over them.
type host struct {
	*launch.Launcher
	paths isolation.Paths
}

func newHost(t testing.TB) host {
	t.Helper()
	hosttest.Need(t)
	// Not t.TempDir: its path is too long for a socket's name.
	dir, err := os.MkdirTemp("", "warden")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	config := launch.Config{UID: nobody, GID: nobody, Stderr: os.Stderr, Paths: isolation.Paths{
		Warden: hosttest.Build(t, "./isolation/warden"), IO: filepath.Join(dir, "io"), Logs: filepath.Join(dir, "logs"),
	}}
	return host{launch.New(config), config.Paths}
}

// makePipes makes the FIFOs of a task as isolation/runtime does.
func (h host) makePipes(t testing.TB, uid spec.UID) {
	t.Helper()
	dir := h.paths.IODir(uid)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{fifo.Stdout, fifo.Stderr} {
		if err := fifo.Make(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

// startLog starts the log of uid and ends it with the test.
func (h host) startLog(t testing.TB, uid spec.UID) {
	t.Helper()
	if err := h.StartLog(t.Context(), uid); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.StopLog(context.Background(), uid); err != nil {
			t.Error(err)
		}
	})
}

// writer opens one of the task's pipes as its shim does.
func (h host) writer(t testing.TB, uid spec.UID, name string) *os.File {
	t.Helper()
	w, err := os.OpenFile(filepath.Join(h.paths.IODir(uid), name), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// deadline bounds a wait in a test; it is never the expected way out.
func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}
