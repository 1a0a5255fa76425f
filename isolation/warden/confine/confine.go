// Package confine takes from a running process all that it does not need any
// more: its user id, its capabilities, the right to gain any, and every system
// call it has no use for.
//
//	err := confine.Process(confine.Options{UID: 990, GID: 990, Calls: confine.Pipes()})
//
// Neighbours: every warden calls it once its files are open.
package confine

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Options say what is left.
type Options struct {
	// UID and GID to become. 0 stays root without a capability, which only a
	// program built without cgo can do to all its threads.
	UID, GID int
	// Calls are the system calls still allowed: [Pipes], [Accept] or [Network].
	// Others fail with EPERM.
	Calls []uint32
	// Folder is the only one below which files may still be opened, made or removed,
	// where the kernel has Landlock; "" is any.
	Folder string
}

// Process confines all threads of this process, for good.
func Process(o Options) error {
	if o.Folder != "" { // before the ids go, which may not enter the folders above
		if err := keepToFolder(o.Folder); err != nil {
			return err
		}
	}
	if err := dropIDs(o); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		if err := dropCapabilities(); err != nil {
			return err
		}
	}
	// Not dumpable: no process with the same uid may trace it or open its memory.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid tracing: %w", err)
	}
	return install(program(o.Calls))
}

func dropIDs(o Options) error {
	if o.UID == 0 || os.Geteuid() != 0 {
		return nil
	}
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("drop groups: %w", err)
	}
	if err := syscall.Setresgid(o.GID, o.GID, o.GID); err != nil {
		return fmt.Errorf("become gid %d: %w", o.GID, err)
	}
	if err := syscall.Setresuid(o.UID, o.UID, o.UID); err != nil {
		return fmt.Errorf("become uid %d: %w", o.UID, err)
	}
	return nil
}

// dropCapabilities empties the permitted, effective and inheritable sets. A
// process that has become somebody else has lost them with that.
func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET,
		uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none)), 0)
	if errno != 0 {
		return fmt.Errorf("drop capabilities: %w", errno)
	}
	return nil
}

// install puts the filter on all threads at once; the kernel carries this
// thread's no_new_privs to the others with it.
func install(filter []unix.SockFilter) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid new privileges: %w", err)
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("install seccomp filter: %w", errno)
	}
	return nil
}
