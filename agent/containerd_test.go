package agent

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gpuhost/gpuhost/agent/config"
	"github.com/gpuhost/gpuhost/agent/fault"
)

// TestTheUnitsFoldersAreThere: what containerd is told to use is made before it
// starts, by the same package.
func TestTheUnitsFoldersAreThere(t *testing.T) {
	text, err := os.ReadFile("../systemd/gpuhost-runtime.tmpfiles")
	if err != nil {
		t.Fatal(err)
	}
	made := strings.Fields(string(text))
	c := runtimeConfig(config.PathsBelow(""), config.Default().Runtime)
	for _, dir := range []string{c.Root, c.State, c.Sockets, filepath.Join(c.State, "tmp"), filepath.Join(c.State, "runc")} {
		if !slices.Contains(made, dir) {
			t.Errorf("gpuhost-runtime.tmpfiles does not make %s", dir)
		}
	}
	drop, err := os.ReadFile("../packaging/nfpm/10-package.toml")
	if err != nil {
		t.Fatal(err)
	}
	if want := "address = \"" + c.Socket() + "\""; !strings.Contains(string(drop), want) || !strings.Contains(ContainerdConfig(), want) {
		t.Errorf("the agent's containerd and the unit's do not both have %s", want)
	}
}

func TestAMissingUnitsCgroup(t *testing.T) {
	cfg := config.Default()
	cfg.Runtime.Cgroup = "/gpuhost.slice/gpuhost-that-is-not-there.service"
	h := newHost(cfg, Options{Root: t.TempDir()}, nil)
	if err := h.findCgroup(t.Context()); !fault.Is(err, fault.Unsupported) || !strings.Contains(fault.HintOf(err), "gpuhost-tenants") {
		t.Error(err)
	}
	cfg.Runtime.Cgroup = ""
	if err := h.findCgroup(t.Context()); err != nil {
		t.Error(err)
	}
}
