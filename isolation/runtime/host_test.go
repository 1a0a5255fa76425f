package runtime

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
	"github.com/gpuhost/gpuhost/packaging/lab/ociimage"
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
	if err := h.makeContainer(lease); err != nil {
		h.t.Fatal(err)
	}
	return h.readLog()
}

// makeContainer does what the room does for a container.
func (h *host) makeContainer(lease isolation.Lease) error {
	h.t.Helper()
	user, err := h.client.User(h.t.Context(), lease)
	if err != nil {
		return err
	}
	return h.client.Prepare(h.t.Context(), isolation.Creation{Lease: lease, User: user, Fingerprint: isolation.FingerprintOf(lease)})
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
	if _, err := handle.Start(h.t.Context(), patience); err != nil {
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
