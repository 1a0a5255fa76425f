package agent

import (
	"context"
	"path/filepath"

	"github.com/gpuhost/gpuhost/agent/sim"
	"github.com/gpuhost/gpuhost/isolation/drivertree"
)

// trees gives each tenant its own copy of the driver's files. It implements
// isolation.Trees. Only the stand-in of a simulated machine is built as a source
// yet: on real GPUs instances start without a driver tree.
type trees struct {
	store   *drivertree.Store
	source  string // folder of the driver's files; "" where there are none
	version string
}

func (h *host) openTrees() error {
	h.trees = &trees{store: drivertree.New(filepath.Join(h.paths.Lib, "trees"))}
	if err := h.trees.store.Tidy(); err != nil {
		return err
	}
	if h.options.Sim == "" {
		h.log.Warn("no driver tree is mounted into instances: taking it from a real driver is not built yet")
		return nil
	}
	scenario, err := sim.Find(h.options.Sim)
	if err != nil {
		return err
	}
	h.trees.version = scenario.DriverVersion
	h.trees.source = filepath.Join(h.paths.Lib, "driver", scenario.DriverVersion)
	return sim.WriteDriverTree(h.trees.source, scenario)
}

// Tree implements isolation.Trees.
func (t *trees) Tree(ctx context.Context, tenant string) (string, error) {
	if t.source == "" {
		return "", nil
	}
	made, err := t.store.Ensure(ctx, t.source, drivertree.Key{Tenant: tenant, Version: t.version})
	return made.Path, err
}
