package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

// roleVariable makes the test binary play a tenant's process instead.
const roleVariable = "GPUHOST_CGROUP_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) == "opener" {
		playOpener()
		return
	}
	hosttest.Main(m)
}

// playOpener answers each line "path" with the errno of opening it read-write,
// and "mknod path major minor" likewise, until its input ends.
func playOpener() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		var err error
		if words[0] == "mknod" {
			var major, minor uint32
			fmt.Sscan(words[2], &major)
			fmt.Sscan(words[3], &minor)
			err = unix.Mknod(words[1], unix.S_IFCHR|0o600, int(unix.Mkdev(major, minor)))
		} else {
			var fd int
			if fd, err = unix.Open(words[0], unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOCTTY, 0); err == nil {
				unix.Close(fd)
			}
		}
		fmt.Println(errnoName(err))
	}
}

func errnoName(err error) string {
	if err == nil {
		return "ok"
	}
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return err.Error()
	}
	return unix.ErrnoName(errno)
}

// opener is a process inside a cgroup that opens what it is asked to.
type opener struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Scanner
}

func startOpener(t testing.TB, cgroupDir string) *opener {
	t.Helper()
	dir, err := os.Open(cgroupDir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"=opener")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return &opener{t: t, cmd: cmd, in: in, out: bufio.NewScanner(out)}
}

func (o *opener) ask(line string) string {
	o.t.Helper()
	fmt.Fprintln(o.in, line)
	if !o.out.Scan() {
		o.t.Fatalf("opener ended at %q: %v", line, o.out.Err())
	}
	return o.out.Text()
}
