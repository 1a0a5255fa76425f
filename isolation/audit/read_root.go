package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// maxDevEntries bounds what is read of the tenant's /dev. Who fills it with more
// cannot be judged, which fails the control.
const maxDevEntries = 4096

// root is the task's root folder. Everything below it belongs to the tenant.
type root struct{ fd int }

func openRoot(pid int) (*root, error) {
	fd, err := unix.Open(procDir(pid)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open root of process %d: %w", pid, err)
	}
	return &root{fd}, nil
}

func (r *root) close() { unix.Close(r.fd) }

// open opens a path inside the root, as O_PATH or as a folder: neither waits for
// anybody nor wakes a driver. The kernel itself keeps to the root and refuses
// links, also those that appear while it walks.
func (r *root) open(name string, flags uint64) (int, error) {
	fd, err := unix.Openat2(r.fd, strings.TrimPrefix(name, "/"), &unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC, // O_NOFOLLOW would let a link at the end pass
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return -1, &fs.PathError{Op: "open in the task's root", Path: name, Err: err}
	}
	return fd, nil
}

// readRoot reads all facts that need the task's root.
func (a *Auditor) readRoot(f *Facts, pid int) {
	r, err := openRoot(pid)
	if err != nil {
		f.Devices.Err, f.Masked.Err, f.ReadOnly.Err, f.Shm.Err = err, err, err, err
		return
	}
	defer r.close()
	f.Devices = fact(r.devices())
	f.Masked = fact(r.hidden(append(driverPaths(), kernelPaths()...)))
	f.ReadOnly = fact(r.hidden(readOnlyPaths()))
	f.Shm = fact(r.fileSystem("/dev/shm"))
}

// rootOwner is the host's uid of the task's /, which must be the first of the
// tenant's range: mountinfo does not show whether a mount is id-mapped.
func rootOwner(pid int) (uint32, error) {
	r, err := openRoot(pid)
	if err != nil {
		return 0, err
	}
	defer r.close()
	var st unix.Stat_t
	if err := unix.Fstat(r.fd, &st); err != nil {
		return 0, fmt.Errorf("stat root of process %d: %w", pid, err)
	}
	return st.Uid, nil
}

// devices lists every device node below /dev.
func (r *root) devices() ([]Device, error) {
	fd, err := r.open("/dev", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	w := &devWalk{}
	err = w.folder(fd, "/dev")
	return w.found, err
}

// devWalk walks /dev by open folders, never by path. It leaves out shm and mqueue,
// which the tenant may fill at will and whose mounts are judged by D10 and K5.
type devWalk struct {
	found []Device
	seen  int
}

func (w *devWalk) folder(fd int, name string) error {
	names, err := entries(fd, name, maxDevEntries-w.seen)
	if err != nil {
		return err
	}
	for _, entry := range names {
		w.seen++
		if err := w.entry(fd, path.Join(name, entry), entry); err != nil {
			return err
		}
	}
	return nil
}

func (w *devWalk) entry(dir int, full, name string) error {
	var st unix.Stat_t
	err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil // gone meanwhile
	}
	if err != nil {
		return &fs.PathError{Op: "stat", Path: full, Err: err}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR, unix.S_IFBLK:
		w.found = append(w.found, device(full, st))
	case unix.S_IFDIR:
		if full != "/dev/shm" && full != "/dev/mqueue" {
			return w.descend(dir, full, name)
		}
	}
	return nil
}

func (w *devWalk) descend(dir int, full, name string) error {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil // replaced meanwhile; the next audit sees by what
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: full, Err: err}
	}
	defer unix.Close(fd)
	return w.folder(fd, full)
}

func device(name string, st unix.Stat_t) Device {
	return Device{
		Path: name, Block: st.Mode&unix.S_IFMT == unix.S_IFBLK,
		Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev),
		UID: st.Uid, GID: st.Gid, Mode: st.Mode & 0o7777,
	}
}

// entries lists an open folder, at most limit names.
func entries(fd int, name string, limit int) ([]string, error) {
	copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("copy descriptor of %s: %w", name, err)
	}
	dir := os.NewFile(uintptr(copied), name)
	defer dir.Close()
	names, err := dir.Readdirnames(max(limit, 0) + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("list %s: %w", name, err)
	}
	if len(names) > limit {
		return nil, fmt.Errorf("list /dev: more than %d entries", maxDevEntries)
	}
	return names, nil
}

func (r *root) hidden(paths []string) ([]Hidden, error) {
	all := make([]Hidden, 0, len(paths))
	for _, p := range paths {
		state, err := r.stateOf(p)
		if err != nil {
			return nil, err
		}
		all = append(all, Hidden{Path: p, State: state})
	}
	return all, nil
}

// stateOf judges what lies at a path by the thing itself: /dev/null and an empty
// read-only folder show nothing, whichever way they came there.
func (r *root) stateOf(name string) (string, error) {
	fd, err := r.open(name, unix.O_PATH)
	if errors.Is(err, fs.ErrNotExist) {
		return StateAbsent, nil
	}
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	var fsys unix.Statfs_t
	if err := errors.Join(unix.Fstat(fd, &st), unix.Fstatfs(fd, &fsys)); err != nil {
		return "", fmt.Errorf("stat %s in the task's root: %w", name, err)
	}
	readOnly := fsys.Flags&unix.ST_RDONLY != 0
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3):
		return StateMasked, nil
	case readOnly && int64(fsys.Type) == unix.TMPFS_MAGIC && r.empty(name):
		return StateMasked, nil
	case readOnly:
		return StateReadOnly, nil
	default:
		return StateVisible, nil
	}
}

func (r *root) empty(name string) bool {
	fd, err := r.open(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	names, err := entries(fd, name, 1)
	return err == nil && len(names) == 0
}

func (r *root) fileSystem(name string) (FileSystem, error) {
	fd, err := r.open(name, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return FileSystem{}, err
	}
	defer unix.Close(fd)
	var fsys unix.Statfs_t
	var inside, outside unix.Stat_t
	if err := errors.Join(unix.Fstatfs(fd, &fsys), unix.Fstat(fd, &inside)); err != nil {
		return FileSystem{}, fmt.Errorf("stat %s in the task's root: %w", name, err)
	}
	host := unix.Lstat(name, &outside)
	return FileSystem{
		Tmpfs:   int64(fsys.Type) == unix.TMPFS_MAGIC,
		Bytes:   int64(fsys.Blocks) * fsys.Bsize,
		Options: mountFlags(fsys.Flags),
		OwnRoot: host != nil || outside.Dev != inside.Dev,
	}, nil
}

func mountFlags(flags int64) []string {
	var names []string
	for _, f := range []struct {
		bit  int64
		name string
	}{{unix.ST_NODEV, "nodev"}, {unix.ST_NOEXEC, "noexec"}, {unix.ST_NOSUID, "nosuid"}, {unix.ST_RDONLY, "ro"}} {
		if flags&f.bit != 0 {
			names = append(names, f.name)
		}
	}
	return names
}
