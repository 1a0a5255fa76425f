package confine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// playVariable makes the test binary a process that keeps to the folder it names.
const playVariable = "CONFINE_TEST_FOLDER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(playVariable); dir != "" {
		if err := play(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// play does what a log writer does, and what one that was taken over might.
func play(dir string) error {
	if err := keepToFolder(dir); err != nil {
		return err
	}
	inside := filepath.Join(dir, "log")
	file, err := os.OpenFile(inside, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteString("text")
	if err := errors.Join(err, file.Truncate(1), file.Sync(), file.Close(), os.Remove(inside)); err != nil {
		return err
	}
	_, read := os.ReadFile("/proc/self/status")
	for what, err := range map[string]error{
		"read outside":   read,
		"write outside":  os.WriteFile(dir+"-outside", nil, 0o600),
		"list outside":   list(filepath.Dir(dir)),
		"folder inside":  os.Mkdir(inside, 0o700),
		"socket inside":  unix.Mknod(inside, unix.S_IFSOCK|0o600, 0),
		"symlink inside": os.Symlink("/etc/passwd", inside),
	} {
		if !errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("%s: %v, want permission denied", what, err)
		}
	}
	return nil
}

func list(dir string) error {
	_, err := os.ReadDir(dir)
	return err
}

func TestKeepToFolder(t *testing.T) {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		t.Skipf("this kernel has no Landlock: %v", errno)
	}
	t.Logf("Landlock ABI %d", version)
	binary := filepath.Join(t.TempDir(), "plain.test")
	build := exec.Command("go", "test", "-c", "-o", binary, ".") // without cgo, as wardens are, and so without the race detector
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(binary)
	cmd.Env = append(os.Environ(), playVariable+"="+filepath.Join(t.TempDir()))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
