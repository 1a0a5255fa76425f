package agent

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/renameio/v2"
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
	if err != nil || used < h.settings().Images.DiskHigh {
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
		if used, err = diskUsed(h.paths.Lib); err != nil || used <= h.settings().Images.DiskLow {
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
	told := xidMark(filepath.Join(h.paths.Run, "xids"))
	err := kmsg.Follow(ctx, told.next(), func(x kmsg.XID) {
		h.noteXID(ctx, x, loggedAt(x, time.Now()))
		if err := told.set(x); err != nil {
			h.log.Warn("remember the last XID", "error", err)
		}
	})
	if err != nil {
		h.log.Warn("XID errors are not counted: the kernel log cannot be read", "error", err)
	}
	return nil
}

// xidMark is the file that says which XIDs of this boot were told. It does not
// outlive a reboot, after which the kernel counts anew.
type xidMark string

// next is the first record of the kernel log that was not told; all are new where
// the file is missing or damaged.
func (m xidMark) next() uint64 {
	text, err := os.ReadFile(string(m))
	if err != nil {
		return 0
	}
	last, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0
	}
	return last + 1
}

func (m xidMark) set(x kmsg.XID) error {
	return renameio.WriteFile(string(m), fmt.Appendln(nil, x.Sequence), 0o600)
}

// loggedAt is when it was, by the clock of now.
func loggedAt(x kmsg.XID, now time.Time) time.Time {
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &up); err != nil {
		return now
	}
	return now.Add(x.Uptime - time.Duration(up.Nano()))
}

func (h *host) noteXID(ctx context.Context, x kmsg.XID, at time.Time) {
	h.drivers.Forget() // the GPU may be gone
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
			At: at, Type: "warning", Reason: "XID", Actor: "kernel",
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
