// Package netns makes, pins, enters and deletes network namespaces.
//
// A namespace lives as long as something refers to it; here that is a file in a
// folder, onto which the namespace is bind-mounted. Code enters one on a thread
// of its own, and a thread that cannot find its way back dies instead of being
// used for something else.
//
//	err := netns.Create("/run/gpuhost/netns/vpc-abc")
//	err = netns.Do(file, func() error { return os.WriteFile("/proc/sys/net/...") })
//
// Neighbours: network/link and network/nft open their sockets inside.
package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	pinMode    = 0o444
	folderMode = 0o711
)

// Create makes a new namespace, owned by the caller's user namespace, and pins
// it at path. A pin that is there already stays as it is.
func Create(path string) error {
	if pinned, err := IsPinned(path); pinned || err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), folderMode); err != nil {
		return fmt.Errorf("make folder of namespace pins: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, pinMode)
	if err != nil {
		return fmt.Errorf("make namespace pin: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("make namespace pin: %w", err)
	}
	if err := onOwnThread(func() error { return unshareOnto(path) }); err != nil {
		return errors.Join(fmt.Errorf("create namespace %s: %w", path, err), os.Remove(path))
	}
	return nil
}

// Scratch makes a new namespace that is pinned nowhere: it ends with the file and
// what else refers to it.
func Scratch() (*os.File, error) {
	var f *os.File
	err := onOwnThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		f, err = os.Open(threadsOwn())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("create scratch namespace: %w", err)
	}
	return f, nil
}

// threadsOwn is the namespace of the calling thread. /proc/self is the process,
// whose main thread is elsewhere.
func threadsOwn() string { return fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid()) }

func unshareOnto(path string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount(threadsOwn(), path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return nil
}

// onOwnThread runs fn on a thread that is ended afterwards. Never on the
// process's main thread: that one cannot end, and /proc/self, which everybody
// takes for the process, would show the namespace it was left in.
func onOwnThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			done <- onOwnThread(fn) // this thread is held, so that one is another
			runtime.UnlockOSThread()
			return
		}
		done <- fn()
		// Never unlocked: the runtime ends the thread with the goroutine.
	}()
	return <-done
}

// Do runs fn on a thread that has entered the namespace.
func Do(netns *os.File, fn func() error) error {
	return onOwnThread(func() error {
		if err := unix.Setns(int(netns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter namespace %s: %w", netns.Name(), err)
		}
		return fn()
	})
}

// IsPinned says whether a namespace is mounted at path. A mere file is none.
func IsPinned(path string) (bool, error) {
	var st unix.Statfs_t
	err := unix.Statfs(path, &st)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at namespace pin %s: %w", path, err)
	}
	return st.Type == unix.NSFS_MAGIC, nil
}

// Open opens the namespace pinned at path.
func Open(path string) (*os.File, error) {
	pinned, err := IsPinned(path)
	if err != nil {
		return nil, err
	}
	if !pinned {
		return nil, fmt.Errorf("open namespace %s: %w", path, fs.ErrNotExist)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open namespace: %w", err)
	}
	return f, nil
}

// Inode numbers the namespace pinned at path. A number is given again only after
// the namespace that had it is gone.
func Inode(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, fmt.Errorf("look at namespace %s: %w", path, err)
	}
	return st.Ino, nil
}

// Delete takes the pin away. The namespace ends with its last user, and its links
// with it. A pin that is not there is no error.
func Delete(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break // not, or no longer, a mount
		}
		if err != nil {
			return fmt.Errorf("unmount namespace pin %s: %w", path, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove namespace pin: %w", err)
	}
	return nil
}

// List names the pins in a folder that start with prefix, without it. A file
// without a namespace is named too: a crash may have left it.
func List(dir, prefix string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list namespace pins: %w", err)
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutPrefix(e.Name(), prefix); ok {
			names = append(names, name)
		}
	}
	return names, nil
}
