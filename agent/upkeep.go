package agent

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/service"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/agent/store"
	"github.com/gpuhost/gpuhost/drivers/kmsg"
	"github.com/gpuhost/gpuhost/isolation/runtime"
)

// collectInterval is how often the disk is looked at for images nobody uses.
const collectInterval = 10 * time.Minute

// collectImages removes the oldest unused images once the disk is above the high
// mark, until it is below the low one.
func (h *host) collectImages(ctx context.Context) {
	used, err := diskUsed(h.paths.Lib)
	if err != nil || used < h.config.Images.DiskHigh {
		return
	}
	all, err := h.runtime.Images(ctx, "")
	if err != nil {
		h.log.Warn("list images", "error", err)
		return
	}
	slices.SortFunc(all, func(x, y runtime.ImageInfo) int { return x.Created.Compare(y.Created) })
	for _, image := range all {
		if service.InUse(h.store, image) {
			continue
		}
		if used, err = diskUsed(h.paths.Lib); err != nil || used <= h.config.Images.DiskLow {
			return
		}
		if err := h.runtime.RemoveImage(ctx, image.Tenant, image.Ref); err != nil {
			h.log.Warn("collect image", "tenant", image.Tenant, "image", image.Ref, "error", err)
			continue
		}
		h.log.Info("an unused image was collected", "tenant", image.Tenant, "image", image.Ref, "disk_percent", used)
	}
}

// diskUsed is how full the file system of a folder is, in percent.
func diskUsed(dir string) (int, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("stat the file system of %s: %w", dir, err)
	}
	used := s.Blocks - s.Bfree
	return int(used * 100 / max(used+s.Bavail, 1)), nil
}

// watchXIDs counts the errors that the GPUs' driver writes to the kernel log. A
// machine whose log cannot be read (a container) goes without.
func (h *host) watchXIDs(ctx context.Context) error {
	err := kmsg.Follow(ctx, func(x kmsg.XID) { h.noteXID(ctx, x) })
	if err != nil {
		h.log.Warn("XID errors are not counted: the kernel log cannot be read", "error", err)
	}
	return nil
}

func (h *host) noteXID(ctx context.Context, x kmsg.XID) {
	have, err := h.drivers.Observe(ctx)
	if err != nil {
		h.log.Error("XID", "pci", string(x.PCI), "code", x.Code, "text", x.Text)
		return
	}
	for _, d := range have.Inventory.Devices {
		if d.PCI != x.PCI {
			continue
		}
		h.metrics.ObserveXID(d.UUID, x.Code)
		entry := have.Entries[d.UUID]
		err := h.store.AppendEvent(store.Event{
			At: time.Now(), Type: "warning", Reason: "XID", Actor: "kernel",
			Message: fmt.Sprintf("GPU %s (%s): XID %d: %s", d.UUID, d.PCI, x.Code, x.Text),
			Object:  spec.Ref{Kind: spec.KindHost, Name: cmp.Or(entry.Name, "this"), Tenant: entry.Tenant}, UID: entry.Owner,
		})
		if err != nil {
			h.log.Error("write event", "error", err)
		}
	}
}

// hangUp ends the terminals of exec sessions whose agent is gone: nobody can type
// into them any more. Commands without a terminal run on to their end.
func (h *host) hangUp(ctx context.Context) {
	instances, err := h.store.List(spec.KindInstance, "")
	if err != nil {
		return
	}
	for _, o := range instances {
		uid := o.Metadata.UID
		ids, err := h.launcher.Terminals(uid)
		if err != nil {
			h.log.Warn("list exec sessions", "uid", string(uid), "error", err)
		}
		for _, id := range ids {
			process := h.runtime.Process(o.Metadata.Tenant, uid, id)
			if err := process.Kill(ctx, unix.SIGHUP); err == nil {
				h.log.Info("a terminal without a caller was hung up", "object", o.Ref().String(), "id", id)
			}
		}
	}
}

// sameProgram says whether a process runs the file that lies at path now. After an
// upgrade of the package it does not.
func sameProgram(pid int, path string) bool {
	running, err := os.Stat(filepath.Join("/proc", fmt.Sprint(pid), "exe"))
	if err != nil {
		return true // it ended, or cannot be seen: nothing to replace
	}
	file, err := os.Stat(path)
	return err != nil || os.SameFile(running, file)
}
