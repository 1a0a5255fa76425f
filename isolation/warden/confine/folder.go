package confine

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Accesses that Landlock knows, by the version that brought them (ABI 1 is Linux 5.13).
const (
	handledFirst  = unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1
	handledSecond = handledFirst | unix.LANDLOCK_ACCESS_FS_REFER
	handledThird  = handledSecond | unix.LANDLOCK_ACCESS_FS_TRUNCATE

	// allowed is what a writer does in its folder: plain files, nothing else.
	allowed = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR |
		unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
)

// keepToFolder forbids all threads every file but plain ones below the folder. A
// kernel without Landlock, and a program with cgo, which cannot do it to all its
// threads, leave that to the file system's permissions.
func keepToFolder(path string) error {
	rules, err := folderRules(path)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("make Landlock rules: %w", err)
	}
	defer unix.Close(rules)
	_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
	if errno == 0 {
		_, _, errno = syscall.AllThreadsSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(rules), 0, 0)
	}
	if errno != 0 && errno != unix.ENOTSUP {
		return fmt.Errorf("keep to folder %s: %w", path, errno)
	}
	return nil
}

func folderRules(path string) (rules int, err error) {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return -1, errno
	}
	handled := handledAccesses(int(version))
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&handled)), unsafe.Sizeof(handled), 0)
	if errno != 0 {
		return -1, errno
	}
	folder, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		unix.Close(int(fd))
		return -1, err
	}
	defer unix.Close(folder)
	beneath := unix.LandlockPathBeneathAttr{Allowed_access: allowed & handled, Parent_fd: int32(folder)}
	_, _, errno = unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, fd, unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&beneath)), 0, 0, 0)
	if errno != 0 {
		unix.Close(int(fd))
		return -1, errno
	}
	return int(fd), nil
}

func handledAccesses(version int) uint64 {
	switch version {
	case 1:
		return handledFirst
	case 2:
		return handledSecond
	default:
		return handledThird
	}
}
