package runtime

import (
	"context"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

var update = flag.Bool("update", false, "write golden files")

func TestConfigurationFile(t *testing.T) {
	c := Config{HostID: "h", Bin: "/usr/libexec/gpuhost", Root: "/var/lib/gpuhost/runtime", State: "/run/gpuhost/runtime", Sockets: "/run/gpuhost/s"}
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", "containerd.toml")
	if *update {
		if err := os.WriteFile(file, []byte(c.File()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), c.File()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestConfigurationIsChecked(t *testing.T) {
	good := Config{Bin: "/b", Root: "/r", State: "/s", Sockets: "/k"}
	for name, change := range map[string]func(*Config){
		"long sockets": func(c *Config) { c.Sockets = "/" + strings.Repeat("x", maxSocketDir) },
		"relative":     func(c *Config) { c.Root = "r" },
		"quote":        func(c *Config) { c.State = "/s\"" },
		"no bin":       func(c *Config) { c.Bin = "" },
	} {
		c := good
		change(&c)
		if _, err := Open(c); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What is switched off in the file must be off in the process.
func TestContainerdHasOnlyWhatIsNeeded(t *testing.T) {
	h := newHost(t)
	r, err := h.client.containerd.IntrospectionService().Plugins(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, p := range r.Plugins {
		if id := p.Type + "." + p.ID; p.InitErr == nil {
			ids = append(ids, id)
		}
	}
	for _, off := range disabledPlugins() {
		if slices.Contains(ids, off) {
			t.Errorf("%s is on", off)
		}
	}
	slices.Sort(ids)
	file := filepath.Join("testdata", "plugins.txt")
	text := strings.Join(ids, "\n") + "\n"
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text); diff != "" {
		t.Errorf("plugins (-want +got):\n%s", diff)
	}
}

func TestCheckVersions(t *testing.T) {
	hosttest.Need(t)
	bin := hosttest.RuntimeDir(t)
	v, err := CheckVersions(t.Context(), bin)
	if err != nil || older(v.Containerd, minContainerd) || older(v.Runc, minRunc) {
		t.Errorf("%+v, %v", v, err)
	}
	if _, err := CheckVersions(t.Context(), t.TempDir()); !fault.Is(err, fault.Unsupported) || fault.HintOf(err) == "" {
		t.Errorf("nothing installed: %v", err)
	}
}

func TestOlder(t *testing.T) {
	for _, tt := range []struct {
		version, least string
		want           bool
	}{
		{"1.5.2", "1.5.2", false}, {"v1.5.10", "1.5.2", false}, {"1.4.9", "1.5.2", true}, {"2.0.0", "1.5.2", false},
		{"1.5.2-rc.1", "1.5.2", false}, {"", "1.5.2", true}, {"unknown", "1.5.2", true},
	} {
		if got := older(tt.version, tt.least); got != tt.want {
			t.Errorf("older(%q, %q) = %v", tt.version, tt.least, got)
		}
	}
}

func TestRuncThatLacksSomething(t *testing.T) {
	var f features
	if f.lacks() != "seccomp" {
		t.Errorf("lacks %q", f.lacks())
	}
	f.Linux.Seccomp.Enabled, f.Linux.Cgroup.V2, f.Linux.MountExtensions.IDMap.Enabled = true, true, true
	f.Linux.Namespaces = []string{"user", "pid", "mount", "ipc", "uts", "network", "cgroup"}
	if f.lacks() != "time namespaces" {
		t.Errorf("lacks %q", f.lacks())
	}
}

func TestSpaceIsCheckedBeforehand(t *testing.T) {
	c := &Client{config: Config{Root: t.TempDir()}}
	if err := c.fits("pull", 1); err != nil {
		t.Error(err)
	}
	err := c.fits("pull", 1<<60)
	if !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "are missing") {
		t.Errorf("error %v", err)
	}
}

func TestAnImportThatCannotFitIsNotRead(t *testing.T) {
	c := &Client{config: Config{Root: t.TempDir()}}
	archive := strings.NewReader("archive")
	_, err := c.ImportImage(t.Context(), "acme", "lab:1", 1<<60, archive)
	if !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "are missing") {
		t.Errorf("error %v", err)
	}
	if archive.Len() != len("archive") {
		t.Error("it was read")
	}
}

func TestAnImportOfUnknownLengthStopsBeforeTheDiskIsFull(t *testing.T) {
	looks := 0
	full := fault.New(fault.Exhausted, "import image", "the disk is full")
	endless := &wary{Reader: zeros{}, fits: func(need int64) error {
		if looks++; looks > 3 {
			return full
		}
		return nil
	}}
	n, err := io.Copy(io.Discard, endless)
	if err != error(full) || n != 3*waryStep {
		t.Errorf("%d bytes, error %v", n, err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

func TestMeterReportsTheLastByte(t *testing.T) {
	var last plan.Progress
	m := newMeter(func(p plan.Progress) { last = p }, 0)
	m.expect(10)
	for range 10 {
		m.add(1)
	}
	if last.Done != 10 || last.Total != 10 {
		t.Errorf("last %+v", last)
	}
}

func TestWaitEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if wait(ctx, time.Hour) {
		t.Error("waited an hour")
	}
}
