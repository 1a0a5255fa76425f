// Package persistenced recognises the driver's persistence daemon, which has every
// GPU open for as long as it runs and gives nobody access to one.
//
//	own, err := persistenced.Installed().Is(pid, uid)
//
// A name proves nothing, and neither does a path: a tenant's process may have both.
// What counts is the file it was started from, by inode, and whom it runs as.
package persistenced

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"
)

// Daemon is what the driver's package installed.
type Daemon struct {
	Path string // of its executable
	User string // whom it becomes, besides root
}

// Installed is where NVIDIA's packages and those of distributions put it.
func Installed() Daemon {
	return Daemon{Path: "/usr/bin/nvidia-persistenced", User: "nvidia-persistenced"}
}

// Is says whether a process, which has this effective user on the host, is the
// daemon. One that has ended is not.
func (d Daemon) Is(pid int, uid uint32) (bool, error) {
	if uid != 0 && !d.becomes(uid) {
		return false, nil
	}
	installed, err := os.Stat(d.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	runs, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return os.SameFile(installed, runs), nil
}

func (d Daemon) becomes(uid uint32) bool {
	account, err := user.Lookup(d.User)
	return err == nil && account.Uid == strconv.FormatUint(uint64(uid), 10)
}
