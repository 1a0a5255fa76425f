package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/isolation/cgroup"
	"github.com/gpuhost/gpuhost/isolation/node"
	"github.com/gpuhost/gpuhost/isolation/oci"
	"github.com/gpuhost/gpuhost/isolation/warden/launch"
	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

const uvmMajor = 510

func uvm() uint32 { return uvmMajor }

// host is what the agent has set up before the first task.
type host struct {
	t       testing.TB
	paths   isolation.Paths
	tree    *cgroup.Tree
	nodes   *node.Store
	auditor *Auditor
	runc    string
	state   string // runc's
}

func newHost(t testing.TB) *host {
	t.Helper()
	hosttest.Need(t)
	dir := t.TempDir()
	// The tenant's root must be able to pass down to its root file system.
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, runc: filepath.Join(hosttest.RuntimeDir(t), "runc"), state: filepath.Join(dir, "runc")}
	h.paths = isolation.Paths{
		Nodes: filepath.Join(dir, "nodes"), Etc: filepath.Join(dir, "etc"),
		CgroupMount: "/sys/fs/cgroup",
		CgroupRoot:  fmt.Sprintf("/gpuhost-audittest-%d-%d", os.Getpid(), time.Now().UnixNano()),
		Warden:      hosttest.Build(t, "./isolation/warden"),
	}
	var err error
	if h.tree, err = cgroup.New(h.paths, uvm); err != nil {
		t.Fatal(err)
	}
	if h.nodes, err = node.Open(h.paths, uvm); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.nodes.Destroy(); err != nil {
			t.Error(err)
		}
		if err := h.tree.Destroy(context.Background()); err != nil {
			t.Error(err)
		}
	})
	wardens := launch.New(launch.Config{Paths: h.paths})
	t.Cleanup(func() { h.must(wardens.Close()) })
	h.auditor = New(Config{Paths: h.paths, UVMMajor: uvm, Cgroups: h.tree, Canary: wardens})
	return h
}

func newLease(n uint32, minors ...uint32) isolation.Lease {
	l := isolation.Lease{
		UID: spec.UID(fmt.Sprintf("auditaa%c", 'a'+n)), Tenant: "acme", Name: fmt.Sprintf("train-%d", n),
		IDs:     isolation.IDRange{Start: 1_879_048_192 + n*65_536, Size: 65_536},
		Command: []string{"/bin/busybox", "sh", "-c", "while :; do sleep 1; done"},
		Limits:  isolation.Limits{CPU: 1000, Memory: 256 << 20, Pids: 64, Shm: 32 << 20},
	}
	for _, m := range minors {
		l.GPUs = append(l.GPUs, isolation.Device{Minor: m})
	}
	return l
}

// task is a container made with runc itself from the product's specification.
type task struct {
	*host
	lease isolation.Lease
	pid   int
}

// create leaves the task created and waiting, as the agent audits it first.
func (h *host) create(lease isolation.Lease) *task {
	h.t.Helper()
	h.must(h.tree.Make(h.t.Context(), lease))
	h.must(h.nodes.Make(h.t.Context(), lease))
	bundle := filepath.Join(h.t.TempDir(), "bundle")
	h.rootfs(filepath.Join(bundle, "rootfs"), lease)
	h.etc(lease)
	controllers, err := h.tree.Controllers(h.t.Context())
	h.must(err)
	s, err := oci.Build(oci.Input{
		Lease: lease, Paths: h.paths, Image: imagespec.ImageConfig{},
		Nodes: isolation.Grant(lease, uvmMajor), Controllers: controllers, CPUs: 2, Files: 1024, LockedMemory: 64 << 10,
	})
	h.must(err)
	config, err := json.Marshal(s)
	h.must(err)
	h.must(os.WriteFile(filepath.Join(bundle, "config.json"), config, 0o600))
	t := &task{host: h, lease: lease}
	h.t.Cleanup(t.remove)
	pidFile := filepath.Join(bundle, "pid")
	h.run("create", "--bundle", bundle, "--pid-file", pidFile, string(lease.UID))
	text, err := os.ReadFile(pidFile)
	h.must(err)
	t.pid, err = strconv.Atoi(string(text))
	h.must(err)
	return t
}

func (t *task) start() *task {
	t.t.Helper()
	t.run("start", string(t.lease.UID))
	return t
}

func (t *task) remove() {
	_ = t.tree.Kill(t.t.Context(), t.lease.UID)
	if out, err := exec.Command(t.runc, "--root", t.state, "delete", "--force", string(t.lease.UID)).CombinedOutput(); err != nil {
		t.t.Errorf("delete task: %v: %s", err, out)
	}
	if err := t.tree.Remove(t.t.Context(), t.lease.UID); err != nil {
		t.t.Error(err)
	}
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) run(args ...string) {
	h.t.Helper()
	log := filepath.Join(h.t.TempDir(), "runc.log")
	cmd := exec.Command(h.runc, append([]string{"--root", h.state, "--log", log}, args...)...)
	out, err := os.CreateTemp(h.t.TempDir(), "stdio")
	h.must(err)
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(log)
		h.t.Fatalf("runc %s: %v: %s", strings.Join(args, " "), err, text)
	}
}

// rootfs is a busybox that belongs to the tenant, on a file system with the mount
// flags that the product's overlay has.
func (h *host) rootfs(dir string, lease isolation.Lease) {
	h.t.Helper()
	h.must(os.MkdirAll(dir, 0o755))
	h.must(unix.Mount("rootfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"))
	h.t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	for _, d := range []string{"bin", "dev", "proc", "sys", "etc", "tmp", "usr/local/nvidia"} {
		h.must(os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	from, err := os.Open("/bin/busybox")
	h.must(err)
	defer from.Close()
	to, err := os.OpenFile(filepath.Join(dir, "bin/busybox"), os.O_CREATE|os.O_WRONLY, 0o755)
	h.must(err)
	_, err = io.Copy(to, from)
	h.must(err)
	h.must(to.Close())
	for _, applet := range []string{"sh", "sleep", "rm", "chmod", "mknod", "cat"} {
		h.must(os.Symlink("busybox", filepath.Join(dir, "bin", applet)))
	}
	h.must(filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(lease.IDs.Start), int(lease.IDs.Start))
	}))
}

func (h *host) etc(lease isolation.Lease) {
	h.t.Helper()
	dir := h.paths.EtcDir(lease.UID)
	h.must(os.MkdirAll(dir, 0o755))
	// Flags are inherited by the bind only if the source has them too.
	for _, name := range []string{"hosts", "hostname", "resolv.conf"} {
		h.must(os.WriteFile(filepath.Join(dir, name), nil, 0o644))
	}
}

// audit runs the product's audit and gives its text, one control a line.
func (t *task) audit() []spec.Control {
	t.t.Helper()
	controls, err := t.auditor.Audit(t.t.Context(), t.lease, t.pid)
	t.must(err)
	return controls
}

func failed(controls []spec.Control) (ids []string) {
	for _, c := range controls {
		if !c.Pass {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

func text(controls []spec.Control) string {
	var lines strings.Builder
	for _, c := range controls {
		fmt.Fprintf(&lines, "%v %s %s\n  expected %s\n  found    %s\n", c.Pass, c.ID, c.Name, c.Expected, c.Found)
	}
	return lines.String()
}
