package agent

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/gpuhost/gpuhost/agent/config"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// removePatience bounds how long the processes beside the agent may take to end.
const removePatience = 30 * time.Second

// Remove takes the agent off the host: its resolver, its containerd, its table
// and namespaces, its mounts and cgroups, its runtime folder. The state and the
// settings stay. It refuses while an agent runs, and while instances are stored
// unless o.Yes: then they end, their disks stay, and the next agent starts them.
func Remove(ctx context.Context, o Options) error {
	cfg, err := config.Load(o.settings())
	if err != nil {
		return err
	}
	log, _ := newLog(o.Log, config.Log{Level: "warn", Format: "text"})
	h := newHost(cfg, o, log)
	if err := h.assemble(ctx, h.layOut, h.openStore, h.openIsolation, h.openRuntime, h.openNetwork); err != nil {
		return err
	}
	defer h.close()
	instances, err := h.store.List(spec.KindInstance, "")
	if err != nil {
		return err
	}
	if len(instances) > 0 && !o.Yes {
		return fault.New(fault.Busy, "remove the agent from this host", "%s and %d others are stored", instances[0].Ref(), len(instances)-1).
			WithHint("start the agent and delete them: gpuhost delete; or end them and keep their disks: --yes")
	}
	ctx, cancel := context.WithTimeout(ctx, removePatience)
	defer cancel()
	// Whatever still runs ends before the rules that deny it.
	if err := h.cgroups.Destroy(ctx); err != nil {
		return err
	}
	if len(instances) > 0 {
		if err := h.removeTasks(ctx); err != nil {
			return err // their root file systems are mounted in the folders
		}
	}
	return errors.Join(h.removeNetwork(ctx), h.stopRuntime(ctx), h.nodes.Destroy(), h.removeFolders())
}

// removeTasks lets containerd forget the tasks that have just been killed, which
// unmounts their root file systems.
func (h *host) removeTasks(ctx context.Context) error {
	if err := h.runtime.Ready(ctx); err != nil {
		return err
	}
	left, err := h.runtime.Leftovers(ctx)
	if err != nil {
		return err
	}
	for _, l := range left {
		if _, err := h.runtime.AwaitExit(ctx, l.Tenant, l.UID); err != nil {
			return err
		}
		if err := h.runtime.DeleteTask(ctx, l.Tenant, l.UID); err != nil {
			return err
		}
		if err := h.pins.Unpin(ctx, l.UID); err != nil {
			return err
		}
	}
	return nil
}

// removeNetwork closes what is left of VPCs, and leaves the host's table and
// devices as they were found.
func (h *host) removeNetwork(ctx context.Context) error {
	vpcs, err := h.network.List(ctx)
	if err != nil {
		return err
	}
	errs := make([]error, 0, len(vpcs)+1)
	for _, uid := range vpcs {
		errs = append(errs, h.kernel.Remove(ctx, uid))
	}
	rest := &shared{network: h.network, log: h.log}
	return errors.Join(append(errs, rest.Publish(ctx, nil))...)
}

func (h *host) stopRuntime(ctx context.Context) error {
	if h.supervisor == nil {
		return nil // a unit runs it
	}
	return h.supervisor.Stop(ctx)
}

func (h *host) removeFolders() error {
	errs := []error{os.RemoveAll(h.paths.Run)}
	if h.paths.Sockets != h.paths.Run {
		errs = append(errs, os.RemoveAll(h.paths.Sockets))
	}
	return errors.Join(errs...)
}
