// Package pin keeps the network namespace of a task alive and findable.
//
//	pins := pin.Open(paths)
//	err := pins.Pin(ctx, uid, pid)   // between create and start
//	err = pins.Unpin(ctx, uid)
//
// A pin is a bind mount of /proc/PID/ns/net on a file: network joins the
// namespace through it, and the namespace outlives the task, so that default-deny
// is in force from before the first until after the last process.
//
// Unlike the device nodes, the folder keeps the propagation of its parent, as
// iproute2's does: where that is shared, taking a pin away here takes it away in
// the mount namespaces of other services too, which would otherwise keep a dead
// namespace and its device alive.
//
// Neighbours: isolation (its port Pins), network (opens the pin).
package pin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
)

// Pins is the folder of pins.
type Pins struct {
	paths isolation.Paths
}

var _ isolation.Pins = (*Pins)(nil)

// Open makes the folder where it is missing.
func Open(paths isolation.Paths) (*Pins, error) {
	if err := os.MkdirAll(paths.Netns, 0o700); err != nil {
		return nil, fault.Wrap(fault.Internal, "open network namespace pins", err)
	}
	return &Pins{paths: paths}, nil
}

// identity tells one namespace from another while one of them is held.
type identity struct{ dev, ino uint64 }

// Pin binds the network namespace of pid, replacing the pin of another one. It
// compares before and after, because a pid may come to mean somebody else.
func (p *Pins) Pin(ctx context.Context, uid spec.UID, pid int) error {
	state, err := p.State(ctx, uid, pid)
	if err != nil || state == isolation.PinCurrent {
		return err
	}
	if err := p.Unpin(ctx, uid); err != nil {
		return err
	}
	if err := p.bind(uid, pid); err != nil {
		return fault.Wrap(fault.Internal, "pin network namespace of "+string(uid), err)
	}
	state, err = p.State(ctx, uid, pid)
	if err == nil && state != isolation.PinCurrent {
		return fault.New(fault.Temporary, "pin network namespace of "+string(uid), "process %d changed it meanwhile", pid)
	}
	return err
}

func (p *Pins) bind(uid spec.UID, pid int) error {
	target := p.paths.Pin(uid)
	file, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_RDONLY|unix.O_CLOEXEC, 0o400)
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	if err := unix.Mount(namespaceOf(pid), target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", namespaceOf(pid), err)
	}
	return nil
}

func namespaceOf(pid int) string { return fmt.Sprintf("/proc/%d/ns/net", pid) }

// State compares the pin with the namespace of pid; pid 0 is no task, so that
// whatever is pinned is stale.
func (p *Pins) State(_ context.Context, uid spec.UID, pid int) (isolation.PinState, error) {
	pinned, ok, err := p.pinned(uid)
	if err != nil {
		return isolation.PinNone, fmt.Errorf("look at network namespace pin of %s: %w", uid, err)
	}
	if !ok {
		return isolation.PinNone, nil
	}
	if pid == 0 {
		return isolation.PinStale, nil
	}
	task, err := identify(namespaceOf(pid))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return isolation.PinNone, fmt.Errorf("look at network namespace of process %d: %w", pid, err)
	}
	if err != nil || task != pinned {
		return isolation.PinStale, nil
	}
	return isolation.PinCurrent, nil
}

// pinned says which namespace is pinned. A file without a mount, which a crash
// between the two leaves, is no pin.
func (p *Pins) pinned(uid spec.UID) (identity, bool, error) {
	var st unix.Statfs_t
	target := p.paths.Pin(uid)
	err := unix.Statfs(target, &st)
	if errors.Is(err, fs.ErrNotExist) || err == nil && int64(st.Type) != unix.NSFS_MAGIC {
		return identity{}, false, nil
	}
	if err != nil {
		return identity{}, false, err
	}
	id, err := identify(target)
	return id, err == nil, err
}

func identify(path string) (identity, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return identity{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return identity{dev: st.Dev, ino: st.Ino}, nil
}

// Unpin unmounts before it removes: the file under a namespace cannot be removed
// or opened for writing. It does so as often as something is mounted.
func (p *Pins) Unpin(_ context.Context, uid spec.UID) error {
	target := p.paths.Pin(uid)
	for {
		err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break
		}
		if err != nil {
			return fault.Wrap(fault.Internal, "unpin network namespace of "+string(uid), err)
		}
	}
	if err := os.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.Wrap(fault.Internal, "unpin network namespace of "+string(uid), err)
	}
	return nil
}

// List names the instances that have a pin, or a file that a crash left.
func (p *Pins) List(context.Context) ([]spec.UID, error) {
	entries, err := os.ReadDir(p.paths.Netns)
	if err != nil {
		return nil, fmt.Errorf("list network namespace pins: %w", err)
	}
	var uids []spec.UID
	for _, e := range entries {
		// Router namespaces are pinned here too, under names that are no uid.
		if uid := spec.UID(e.Name()); uid.Valid() {
			uids = append(uids, uid)
		}
	}
	return uids, nil
}
