package main

import (
	"bufio"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

// asHolder makes this binary the program itself.
const asHolder = "HOLDER_ARGS"

func TestMain(m *testing.M) {
	if args, set := os.LookupEnv(asHolder); set {
		os.Args = append(os.Args[:1], strings.Fields(args)...)
		main()
		return
	}
	hosttest.Main(m)
}

// unit makes the cgroup that a service manager would.
func unit(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(mount, "gpuhost-holder-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), dyingLimit)
		defer cancel()
		if _, err := awaitEmpty(ctx, dir); err != nil {
			t.Error(err)
		}
		children, err := filepath.Glob(filepath.Join(dir, "*", "cgroup.procs"))
		for _, c := range children {
			err = errors.Join(err, unix.Rmdir(filepath.Dir(c)))
		}
		if err := errors.Join(err, unix.Rmdir(dir)); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// start runs a command in a cgroup, which is made where it is missing.
func start(t *testing.T, cgroup string, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	if err := os.Mkdir(cgroup, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	dir, err := os.Open(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// program is the holder with these arguments.
func program(args string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = []string{asHolder + "=" + args}
	return cmd
}

// hold starts `holder run` in dir and returns once it has said that it is ready.
func hold(t *testing.T, dir string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "notify")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		t.Fatal(err)
	}
	cmd := program("run")
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+socket)
	complaints, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, dir, cmd)
	buf := make([]byte, 64)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil || string(buf[:n]) != "READY=1" {
		t.Fatalf("told %q, %v", buf[:n], err)
	}
	return cmd, bufio.NewReader(complaints)
}

// TestASignalEndsNoTenant: what a stray kill of the holder does, and what stopping
// the unit does.
func TestASignalEndsNoTenant(t *testing.T) {
	hosttest.Need(t)
	dir := unit(t)
	holding, complaints := hold(t, dir)
	if text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs")); err != nil || len(text) > 0 {
		t.Fatalf("the unit's own cgroup holds %q, %v: it can give no controllers", text, err)
	}
	polite := start(t, filepath.Join(dir, "polite"), exec.Command("sleep", "infinity"))
	deaf := exec.Command("sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1000; done")
	said, err := deaf.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, filepath.Join(dir, "deaf"), deaf)
	if _, err := bufio.NewReader(said).ReadString('\n'); err != nil {
		t.Fatal(err)
	}

	if err := holding.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if line, err := complaints.ReadString('\n'); err != nil || !strings.Contains(line, "stays for") {
		t.Fatalf("told to end it said %q, %v", line, err)
	}

	ending := program("end --grace 100ms")
	start(t, filepath.Join(dir, control), ending)
	if err := ending.Wait(); err != nil {
		t.Fatalf("end: %v", err)
	}
	for _, tenant := range []*exec.Cmd{polite, deaf} {
		_ = tenant.Wait()
	}
	if got := polite.ProcessState.Sys().(syscall.WaitStatus).Signal(); got != unix.SIGTERM {
		t.Errorf("the polite one ended by %v", got)
	}
	if got := deaf.ProcessState.Sys().(syscall.WaitStatus).Signal(); got != unix.SIGKILL {
		t.Errorf("the deaf one ended by %v", got)
	}
	if err := holding.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := holding.Wait(); err != nil {
		t.Errorf("with nobody left: %v", err)
	}
}

func TestOwn(t *testing.T) {
	for text, want := range map[string]string{
		"0::/gpuhost.slice/gpuhost-tenants.service\n":                             "/m/gpuhost.slice/gpuhost-tenants.service",
		"0::/gpuhost.slice/gpuhost-tenants.service/holder\n":                      "/m/gpuhost.slice/gpuhost-tenants.service",
		"1:name=systemd:/x\n0::/gpuhost.slice/gpuhost-tenants.service/.control\n": "/m/gpuhost.slice/gpuhost-tenants.service",
		"0::/\n":       "",
		"1:memory:/\n": "",
		"":             "",
	} {
		got, err := own("/m", text)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}
