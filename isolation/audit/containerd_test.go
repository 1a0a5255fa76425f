package audit

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/gpuhost/gpuhost/agent/sim"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/isolation/drivertree"
	"github.com/gpuhost/gpuhost/isolation/runtime"
	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

// The whole flow as the agent does it: containerd, its overlay with mapped ids,
// the driver tree, created and then running.
func TestContainerdTaskPasses(t *testing.T) {
	h := newHost(t)
	dir, err := os.MkdirTemp("/tmp", "au") // sockets of shims need a short path
	h.must(err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	h.must(os.Chmod(dir, 0o755))
	h.paths.IO, h.paths.Logs, h.paths.Netns = dir+"/io", dir+"/logs", dir+"/netns"
	h.paths.DriverTree = h.driverTree(filepath.Join(dir, "driver"))
	client := h.containerd(dir)

	lease := newLease(1, 0, 1)
	lease.Image = "oci-archive:" + hosttest.BusyboxArchive(t)
	// Removing a file of a lower layer makes a whiteout, a device node of a kind:
	// the programs, which refuse every mknod, must leave the overlay that much.
	lease.Command = []string{"sh", "-c", "rm /etc/group && echo removed; exec sleep 600"}
	_, err = client.PrepareImage(t.Context(), isolation.ImageRequest{Tenant: lease.Tenant, Ref: lease.Image}, nil)
	h.must(err)
	h.must(h.tree.Make(t.Context(), lease))
	h.must(h.nodes.Make(t.Context(), lease))
	controllers, err := h.tree.Controllers(t.Context())
	h.must(err)
	h.must(client.Prepare(t.Context(), isolation.Creation{
		Lease: lease, Fingerprint: isolation.FingerprintOf(lease), Nodes: isolation.Grant(lease, uvmMajor), Controllers: controllers,
	}))
	output := h.readFIFOs(lease)
	t.Cleanup(func() { h.removeInstance(client, lease) })
	pid, err := client.CreateTask(t.Context(), lease.Tenant, lease.UID)
	h.must(err)
	instance := &task{host: h, lease: lease, pid: pid}
	for _, phase := range []string{"created", "running"} {
		controls := instance.audit()
		if ids := failed(controls); len(ids) > 0 {
			t.Errorf("%s: controls %v fail:\n%s", phase, ids, text(controls))
		}
		h.must(client.StartTask(t.Context(), lease.Tenant, lease.UID))
	}
	if line, err := output.ReadString('\n'); line != "removed\n" {
		t.Errorf("the task says %q, %v", line, err)
	}
}

func (h *host) driverTree(root string) string {
	h.t.Helper()
	source := h.t.TempDir()
	scenario, err := sim.Find("dgx-h100")
	h.must(err)
	h.must(sim.WriteDriverTree(source, scenario))
	tree, err := drivertree.New(root).Ensure(h.t.Context(), source, drivertree.Key{Tenant: "acme", Version: scenario.DriverVersion})
	h.must(err)
	return tree.Path
}

// containerd starts a private one and waits until it answers.
func (h *host) containerd(dir string) *runtime.Client {
	h.t.Helper()
	config := runtime.Config{
		HostID: "au", Bin: filepath.Dir(h.runc), Root: dir + "/root", State: dir + "/state", Sockets: dir + "/s",
		Log: slog.New(slog.NewTextHandler(h.t.Output(), nil)), Paths: h.paths,
	}
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan error, 1)
	go func() { gone <- runtime.NewSupervisor(config).Run(ctx) }()
	client, err := runtime.Open(config)
	h.must(err)
	h.t.Cleanup(func() {
		_ = client.Close()
		cancel()
		if err := <-gone; err != nil {
			h.t.Error("supervisor:", err)
		}
		if err := runtime.NewSupervisor(config).Stop(context.Background()); err != nil {
			h.t.Error("stop containerd:", err)
		}
	})
	ready, done := context.WithTimeout(h.t.Context(), 30*time.Second)
	defer done()
	h.must(client.Ready(ready))
	return client
}

// readFIFOs stands in for the log writer: creating a task waits for a reader.
func (h *host) readFIFOs(lease isolation.Lease) *bufio.Reader {
	h.t.Helper()
	dir := h.paths.IODir(lease.UID)
	cmd := exec.Command("sh", "-c", fmt.Sprintf("cat %[1]s/stdout & cat %[1]s/stderr; wait", dir))
	out, err := cmd.StdoutPipe()
	h.must(err)
	h.must(cmd.Start())
	h.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return bufio.NewReader(out)
}

func (h *host) removeInstance(client *runtime.Client, lease isolation.Lease) {
	ctx := context.Background()
	if err := h.tree.Kill(ctx, lease.UID); err != nil {
		h.t.Error(err)
	}
	if _, err := client.AwaitExit(ctx, lease.Tenant, lease.UID); err != nil {
		h.t.Error(err)
	}
	if err := client.DeleteTask(ctx, lease.Tenant, lease.UID); err != nil {
		h.t.Error(err)
	}
	if err := client.Delete(ctx, lease.Tenant, lease.UID, isolation.DeleteDisk); err != nil {
		h.t.Error(err)
	}
	if err := h.tree.Remove(ctx, lease.UID); err != nil {
		h.t.Error(err)
	}
}
