package runtime

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
	"github.com/gpuhost/gpuhost/packaging/lab/ociimage"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { hosttest.Main(m) }

const testUID = spec.UID("abcd2345")

// host is a runtime of its own with everything below one folder.
type host struct {
	t      testing.TB
	config Config
	client *Client
	stop   context.CancelFunc // of the supervisor, as an agent's death would
	gone   chan struct{}
}

func newHost(t testing.TB) *host {
	t.Helper()
	hosttest.Need(t)
	bin := hosttest.RuntimeDir(t)
	hosttest.NoLeaks(t, "gpuhost-rt")
	dir, err := os.MkdirTemp("/tmp", "rt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	// runc's init walks there as the tenant's root.
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, config: Config{
		HostID: "rt", Bin: bin, Root: dir + "/root", State: dir + "/state", Sockets: dir + "/s",
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Paths: isolation.Paths{
			Nodes: dir + "/nodes", Netns: dir + "/netns", IO: dir + "/io", Logs: dir + "/logs", Etc: dir + "/etc",
			CgroupRoot: "/gpuhost-rt" + filepath.Base(dir), CgroupMount: "/sys/fs/cgroup",
		},
	}}
	cgroup := h.config.Paths.CgroupDir(testUID)
	if err := os.MkdirAll(cgroup, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(cgroup); os.Remove(filepath.Dir(cgroup)) })
	h.boot()
	t.Cleanup(func() {
		if h.t.Failed() {
			h.remove()
		}
		h.die()
		if err := NewSupervisor(h.config).Stop(context.Background()); err != nil {
			t.Error("stop containerd:", err)
		}
	})
	return h
}

// boot starts what an agent starts, and waits for containerd.
func (h *host) boot() {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.t.Context())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if err := NewSupervisor(h.config).Run(ctx); err != nil {
			h.t.Error("supervisor:", err)
		}
	}()
	client, err := Open(h.config)
	if err != nil {
		h.t.Fatal(err)
	}
	h.client, h.stop, h.gone = client, cancel, gone
	ready, done := context.WithTimeout(h.t.Context(), 20*time.Second)
	defer done()
	if err := client.Ready(ready); err != nil {
		text, _ := os.ReadFile(h.config.logFile())
		h.t.Fatalf("%v\n%s", err, text)
	}
}

// die ends what an agent's death ends.
func (h *host) die() {
	h.stop()
	<-h.gone
	h.client.Close()
}

func (h *host) pid() int {
	h.t.Helper()
	p, err := NewSupervisor(h.config).find()
	if err != nil || p == nil {
		h.t.Fatalf("find containerd: %v, %v", p, err)
	}
	defer p.Close()
	return p.Pid()
}

func (h *host) importBusybox(tenant string, edits ...func(*ociimage.Spec)) string {
	h.t.Helper()
	ref := "oci-archive:" + hosttest.BusyboxArchive(h.t, edits...)
	if _, err := h.client.PrepareImage(h.t.Context(), isolation.ImageRequest{Tenant: tenant, Ref: ref}, nil); err != nil {
		h.t.Fatal(err)
	}
	return ref
}

func testLease(image string, command ...string) isolation.Lease {
	return isolation.Lease{
		UID: testUID, Tenant: "acme", Name: "one", Generation: 3, Want: isolation.WantRunning,
		IDs: isolation.IDRange{Start: 1_879_048_192, Size: 65_536}, Image: image, Command: command, Nameserver: "10.0.0.1",
	}
}

// output is a stand-in for the log writer: a process that outlives the agent.
type output struct {
	cmd  *exec.Cmd
	file string
}

func (h *host) readLog() *output {
	h.t.Helper()
	dir := h.config.Paths.IODir(testUID)
	file := filepath.Join(h.t.TempDir(), "log")
	cmd := exec.Command("sh", "-c", fmt.Sprintf("cat %[1]s/stdout >>%[2]s & cat %[1]s/stderr >>%[2]s; wait", dir, file))
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return &output{cmd, file}
}

func (o *output) text(t testing.TB) string {
	t.Helper()
	if err := o.cmd.Wait(); err != nil {
		t.Error("log writer:", err)
	}
	text, err := os.ReadFile(o.file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (h *host) prepare(lease isolation.Lease) *output {
	h.t.Helper()
	err := h.client.Prepare(h.t.Context(), isolation.Creation{Lease: lease, Fingerprint: isolation.FingerprintOf(lease)})
	if err != nil {
		h.t.Fatal(err)
	}
	return h.readLog()
}

func (h *host) create(lease isolation.Lease) (int, *output) {
	h.t.Helper()
	out := h.prepare(lease)
	pid, err := h.client.CreateTask(h.t.Context(), lease.Tenant, lease.UID)
	if err != nil {
		h.t.Fatal(err)
	}
	return pid, out
}

func (h *host) start(lease isolation.Lease) *output {
	h.t.Helper()
	_, out := h.create(lease)
	if err := h.client.StartTask(h.t.Context(), lease.Tenant, lease.UID); err != nil {
		h.t.Fatal(err)
	}
	return out
}

func (h *host) state() isolation.ContainerState {
	h.t.Helper()
	state, err := h.client.State(h.t.Context(), "acme", testUID)
	if err != nil {
		h.t.Fatal(err)
	}
	return state
}

func (h *host) await() *spec.ExitStatus {
	h.t.Helper()
	exit, err := h.client.AwaitExit(context.Background(), "acme", testUID)
	if err != nil {
		h.t.Fatal(err)
	}
	return exit
}

// remove ends and deletes the instance. It also cleans up after a test that
// failed, and says only then what it could not delete.
func (h *host) remove() {
	h.t.Helper()
	ctx := context.Background()
	if err := os.WriteFile(h.config.Paths.CgroupDir(testUID)+"/cgroup.kill", []byte("1"), 0); err != nil {
		h.t.Error(err)
	}
	h.await()
	if err := h.client.DeleteTask(ctx, "acme", testUID); err != nil {
		h.t.Error(err)
	}
	if err := h.client.Delete(ctx, "acme", testUID, isolation.DeleteDisk); err != nil {
		h.t.Error(err)
	}
	if left, err := h.client.Leftovers(ctx); err != nil || len(left) > 0 {
		h.t.Errorf("leftovers: %v, %v", left, err)
	}
}

func TestInstanceOutlivesTheAgent(t *testing.T) {
	h := newHost(t)
	lease := testLease(h.importBusybox("acme"), "sh", "-c", "echo hello; echo oops >/dev/stderr; while [ ! -e /go ]; do sleep 0.05; done; exit 7")
	out := h.start(lease)
	running := h.state()
	if running.Task.Status != isolation.TaskRunning || running.Generation != 3 || len(running.Fingerprint.Differs(isolation.FingerprintOf(lease))) > 0 {
		t.Fatalf("state %+v", running)
	}
	before := h.pid()
	h.die()
	h.boot()
	if after := h.pid(); after != before {
		t.Fatalf("containerd %d became %d", before, after)
	}
	if again := h.state(); again.Task.Pid != running.Task.Pid {
		t.Errorf("task %+v became %+v", running.Task, again.Task)
	}
	exits := h.client.Exits(t.Context())
	var stat unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/root/bin/busybox", running.Task.Pid), &stat); err != nil || stat.Uid != lease.IDs.Start {
		t.Errorf("the root file system is not idmapped: owner %d, %v", stat.Uid, err)
	}
	h.exec(nil, "touch", "/go")
	if exit := <-exits; exit.UID != testUID || exit.Tenant != "acme" || exit.Status.Code != 7 || exit.Status.Unknown {
		t.Errorf("exit %+v", exit)
	}
	if exit := h.state().Task.Exit; exit == nil || exit.Code != 7 {
		t.Errorf("exit in state: %+v", exit)
	}
	h.remove()
	if text := out.text(t); !strings.Contains(text, "hello\n") || !strings.Contains(text, "oops\n") {
		t.Errorf("log %q", text)
	}
}

// exec runs a command in the instance and returns its output and code.
func (h *host) exec(options *ExecOptions, args ...string) (string, int) {
	h.t.Helper()
	dir := h.t.TempDir()
	if options == nil {
		options = &ExecOptions{}
	}
	options.ID, options.Args = "e"+filepath.Base(dir), args
	options.Stdout = dir + "/stdout"
	if out, err := exec.Command("mkfifo", options.Stdout).CombinedOutput(); err != nil {
		h.t.Fatalf("%s", out)
	}
	reader := exec.Command("cat", options.Stdout)
	var text bytes.Buffer
	reader.Stdout = &text
	if err := reader.Start(); err != nil {
		h.t.Fatal(err)
	}
	handle, err := h.client.Exec(h.t.Context(), "acme", testUID, *options)
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := handle.Start(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	code, err := handle.Wait(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	if err := handle.Delete(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	reader.Wait()
	return text.String(), code
}

func TestContainerIsWhatTheSpecificationSays(t *testing.T) {
	h := newHost(t)
	h.start(testLease(h.importBusybox("acme"), "sleep", "1000"))
	defer h.remove()
	for _, tt := range []struct{ name, script, want string }{
		{"ids", "cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '", " 0 1879048192 65536\n 0 1879048192 65536\n"},
		{"capabilities", "grep CapBnd /proc/self/status", "CapBnd:\t00000000000405fb\n"},
		{"no new privileges", "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1\n"},
		{"seccomp", "grep ^Seccomp: /proc/self/status", "Seccomp:\t2\n"},
		{"hostname", "hostname", "one\n"},
		{"resolver", "cat /etc/resolv.conf", "nameserver 10.0.0.1\n"},
		{"owner", "stat -c %u:%g /bin/busybox /etc/passwd", "0:0\n0:0\n"},
		{"devices", "ls /dev | tr '\\n' ' '", "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero "},
		{"void", "echo $NVIDIA_VISIBLE_DEVICES", "void\n"},
		{"sysfs", "touch /sys/x 2>&1", "touch: /sys/x: Read-only file system\n"},
		{"port 22", "nc -l -p 22 -w 1 & sleep 0.1; kill $! && echo bound", "bound\n"},
		{"unshare", "unshare -U true 2>&1", "unshare: unshare(0x10000000): Operation not permitted\n"},
		{"mount", "mount -t tmpfs x /tmp 2>&1 | head -n 1", "mount: permission denied (are you root?)\n"},
		{"ping", "ip link set lo up 2>/dev/null; grep -c . /proc/net/dev", "3\n"},
		{"root flags", "grep ' / / ' /proc/self/mountinfo | cut -d' ' -f6", "rw,nosuid,nodev,relatime\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			outer := h.t
			h.t = t
			defer func() { h.t = outer }()
			if got, _ := h.exec(nil, "sh", "-c", tt.script); got != tt.want {
				t.Errorf("%s\ngot  %q\nwant %q", tt.script, got, tt.want)
			}
		})
	}
}

func TestKilledContainerdComesBack(t *testing.T) {
	h := newHost(t)
	lease := testLease(h.importBusybox("acme"), "sh", "-c", "while [ ! -e /go ]; do sleep 0.05; done; exit 3")
	h.start(lease)
	pid := h.state().Task.Pid
	exits := h.client.Exits(t.Context())
	h.kill()
	if got := h.state().Task; got.Status != isolation.TaskRunning || got.Pid != pid {
		t.Errorf("task after the crash: %+v, want running with pid %d", got, pid)
	}
	select {
	case exit := <-exits:
		t.Errorf("containerd's crash was taken for an exit: %+v", exit)
	default:
	}
	h.exec(nil, "touch", "/go")
	if exit := <-exits; exit.Status.Code != 3 || exit.Status.Unknown {
		t.Errorf("exit %+v", exit)
	}
	h.kill()
	if got := h.state().Task; got.Status != isolation.TaskExited || got.Exit == nil || !got.Exit.Unknown {
		t.Errorf("task after its exit was lost: %+v", got)
	}
	h.remove()
}

// kill ends containerd the hard way and waits for the next.
func (h *host) kill() {
	h.t.Helper()
	before := h.pid()
	p, err := os.FindProcess(before)
	if err != nil {
		h.t.Fatal(err)
	}
	p.Kill()
	ctx, cancel := context.WithTimeout(h.t.Context(), 20*time.Second)
	defer cancel()
	for {
		if err := h.client.Ready(ctx); err != nil {
			h.t.Fatal(err)
		}
		if found, err := NewSupervisor(h.config).find(); err == nil && found != nil {
			pid := found.Pid()
			found.Close()
			if pid != before {
				return
			}
		}
	}
}

func TestDiskOutlivesTheContainer(t *testing.T) {
	h := newHost(t)
	lease := testLease(h.importBusybox("acme"), "sh", "-c", "echo kept > /root/file")
	h.start(lease)
	h.await()
	ctx := t.Context()
	if err := h.client.DeleteTask(ctx, "acme", testUID); err != nil {
		t.Fatal(err)
	}
	if err := h.client.Delete(ctx, "acme", testUID, isolation.KeepDisk); err != nil {
		t.Fatal(err)
	}
	h.collectGarbage()
	lease.Command = []string{"cat", "/root/file"}
	out := h.start(lease)
	h.await()
	h.remove()
	if text := out.text(t); text != "kept\n" {
		t.Errorf("second container read %q", text)
	}
}

// collectGarbage makes containerd collect what nobody refers to.
func (h *host) collectGarbage() {
	h.t.Helper()
	ctx := h.client.tenant(h.t.Context(), "acme")
	l, err := h.client.containerd.LeasesService().Create(ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := h.client.containerd.LeasesService().Delete(ctx, l, leases.SynchronousDelete); err != nil {
		h.t.Fatal(err)
	}
}

func TestStop(t *testing.T) {
	h := newHost(t)
	ref := h.importBusybox("acme", func(s *ociimage.Spec) { s.Config.StopSignal = "SIGUSR1" })
	h.start(testLease(ref, "sh", "-c", "trap 'exit 5' USR1; while :; do sleep 0.05; done"))
	if err := h.client.StopTask(t.Context(), "acme", testUID, 10*time.Second); err != nil {
		t.Error(err)
	}
	if exit := h.await(); exit.Code != 5 {
		t.Errorf("exit %+v", exit)
	}
	h.remove()
}

func TestTaskThatNeverStartedHasNoExit(t *testing.T) {
	h := newHost(t)
	h.create(testLease(h.importBusybox("acme"), "true"))
	if got := h.state().Task.Status; got != isolation.TaskCreated {
		t.Errorf("status %q", got)
	}
	h.kill()
	if got := h.state().Task.Status; got != isolation.TaskCreated {
		t.Errorf("status %q after containerd's crash", got)
	}
	if err := os.WriteFile(h.config.Paths.CgroupDir(testUID)+"/cgroup.kill", []byte("1"), 0); err != nil {
		t.Error(err)
	}
	if exit := h.await(); exit != nil {
		t.Errorf("exit %+v", exit)
	}
	h.remove()
}

func TestOnlyOneContainerd(t *testing.T) {
	h := newHost(t)
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for range 3 {
		wg.Go(func() { NewSupervisor(h.config).Run(ctx) })
	}
	h.state()
	cancel()
	wg.Wait()
	h.pid()
}
