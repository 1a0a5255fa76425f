package attack

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gpuhost/gpuhost/agent/sim"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/isolation/audit"
	"github.com/gpuhost/gpuhost/isolation/cgroup"
	"github.com/gpuhost/gpuhost/isolation/drivertree"
	"github.com/gpuhost/gpuhost/isolation/node"
	"github.com/gpuhost/gpuhost/isolation/pin"
	"github.com/gpuhost/gpuhost/isolation/runtime"
	"github.com/gpuhost/gpuhost/isolation/warden/launch"
	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
	"github.com/gpuhost/gpuhost/packaging/lab/ociimage"
)

func TestMain(m *testing.M) { hosttest.Main(m) }

const uvmMajor = 510

func uvm() uint32 { return uvmMajor }

// host is the room on its real parts: containerd, runc, cgroups, nodes, pins,
// log writers and the audit. The network is another room's: instances have none.
type host struct {
	t       testing.TB
	dir     string
	paths   isolation.Paths
	client  *runtime.Client
	room    *isolation.Room
	auditor *audit.Auditor
	probe   string
}

func newHost(t testing.TB) *host {
	t.Helper()
	hosttest.Need(t)
	hosttest.NoLeaks(t, "gpuhost-at")
	dir, err := os.MkdirTemp("/tmp", "at") // sockets of shims need a short path
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	must(t, os.Chmod(dir, 0o711)) // runc's init walks there as the tenant's root
	h := &host{t: t, dir: dir, probe: hosttest.Build(t, "./isolation/attack/probe"), paths: isolation.Paths{
		Nodes: dir + "/nodes", Netns: dir + "/netns", IO: dir + "/io", Logs: dir + "/logs", Etc: dir + "/etc",
		CgroupRoot: "/gpuhost-" + filepath.Base(dir), CgroupMount: "/sys/fs/cgroup",
		Warden: hosttest.Build(t, "./isolation/warden"),
	}}
	h.boot()
	return h
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (h *host) boot() {
	h.t.Helper()
	tree, err := cgroup.New(h.paths, uvm)
	must(h.t, err)
	nodes, err := node.Open(h.paths, uvm)
	must(h.t, err)
	pins, err := pin.Open(h.paths)
	must(h.t, err)
	h.t.Cleanup(func() {
		must(h.t, nodes.Destroy())
		must(h.t, tree.Destroy(context.Background()))
	})
	h.client = h.containerd()
	wardens := launch.New(launch.Config{Paths: h.paths})
	h.t.Cleanup(func() { must(h.t, wardens.Close()) })
	h.auditor = audit.New(audit.Config{Paths: h.paths, UVMMajor: uvm, Cgroups: tree, Canary: wardens})
	h.room = isolation.New(isolation.Deps{
		Containers: h.client, Tasks: h.client, Images: h.client, Cgroups: tree, Nodes: nodes, Pins: pins, Wardens: wardens,
		Auditor: h.auditor, Guard: noNetwork{}, Secrets: noSecrets{}, Trees: h.driverTree(), Exits: noJournal{}, Now: time.Now,
	})
}

// containerd starts a private one and waits until it answers.
func (h *host) containerd() *runtime.Client {
	h.t.Helper()
	config := runtime.Config{
		HostID: "at", Bin: hosttest.RuntimeDir(h.t), Root: h.dir + "/root", State: h.dir + "/state", Sockets: h.dir + "/s",
		Log: slog.New(slog.NewTextHandler(h.t.Output(), nil)), Paths: h.paths,
	}
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan error, 1)
	go func() { gone <- runtime.NewSupervisor(config).Run(ctx) }()
	client, err := runtime.Open(config)
	must(h.t, err)
	h.t.Cleanup(func() {
		_ = client.Close()
		cancel()
		must(h.t, <-gone)
		must(h.t, runtime.NewSupervisor(config).Stop(context.Background()))
	})
	ready, done := context.WithTimeout(h.t.Context(), 30*time.Second)
	defer done()
	must(h.t, client.Ready(ready))
	return client
}

// What the room asks of others, who are not here.
type (
	noNetwork struct{}
	noSecrets struct{}
	noJournal struct{}
	oneTree   struct{ path string }
)

func (noNetwork) Prove(context.Context, spec.UID) error                       { return nil }
func (noSecrets) Value(context.Context, string, string) (string, error)       { return "", nil }
func (noJournal) RecordExit(context.Context, spec.UID, spec.ExitStatus) error { return nil }
func (o oneTree) Tree(context.Context, string) (string, error)                { return o.path, nil }

func (h *host) driverTree() isolation.Trees {
	h.t.Helper()
	source := h.t.TempDir()
	scenario, err := sim.Find("dgx-h100")
	must(h.t, err)
	must(h.t, sim.WriteDriverTree(source, scenario))
	tree, err := drivertree.New(h.dir+"/trees").Ensure(h.t.Context(), source, drivertree.Key{Tenant: "acme", Version: scenario.DriverVersion})
	must(h.t, err)
	return oneTree{tree.Path}
}

// image is busybox with the probe at /probe, after the edits.
func (h *host) image(edits ...func(*ociimage.Spec)) string {
	h.t.Helper()
	binary, err := os.ReadFile(h.probe)
	must(h.t, err)
	withProbe := func(s *ociimage.Spec) {
		s.Layers = append(s.Layers, ociimage.Layer{ociimage.File("probe", 0o755, string(binary))})
	}
	return "oci-archive:" + hosttest.BusyboxArchive(h.t, append([]func(*ociimage.Spec){withProbe}, edits...)...)
}

// lease is the n-th instance, of a tenant of its own, with the GPUs of those minors.
func lease(n uint32, image string, minors ...uint32) isolation.Lease {
	l := isolation.Lease{
		UID: spec.UID(fmt.Sprintf("attack%c%c", 'a'+n/26, 'a'+n%26)), Tenant: fmt.Sprintf("tenant-%d", n), Name: fmt.Sprintf("one-%d", n), Want: isolation.WantRunning,
		IDs:   isolation.IDRange{Start: 1_879_048_192 + n*65_536, Size: 65_536},
		Image: image, Command: []string{"/bin/sleep", "1000"},
		Limits: isolation.Limits{CPU: 1000, Memory: 256 << 20, Pids: 64, Shm: 4 << 20},
	}
	for _, m := range minors {
		l.GPUs = append(l.GPUs, isolation.Device{Minor: m})
	}
	return l
}

// pursue brings the instance to where its lease wants it, as a lane does.
func (h *host) pursue(want isolation.Lease) error {
	ctx := context.Background()
	have, err := h.room.Observe(ctx, want)
	if err != nil {
		return err
	}
	steps, err := isolation.Plan(want, have, time.Now()).Ordered()
	if err != nil {
		return err
	}
	for _, step := range steps.Steps {
		if err := h.room.Apply(ctx, step, nil); err != nil {
			return err
		}
	}
	return nil
}

// start makes the instance run until the test ends.
func (h *host) start(want isolation.Lease) {
	h.t.Helper()
	h.t.Cleanup(func() { h.remove(want) })
	must(h.t, h.pursue(want))
}

func (h *host) remove(want isolation.Lease) {
	h.t.Helper()
	want.Want = isolation.WantAbsent
	must(h.t, h.pursue(want))
}

// exec runs a command in the instance as its user and returns its output.
func (h *host) exec(l isolation.Lease, args ...string) string {
	h.t.Helper()
	out := filepath.Join(h.t.TempDir(), "out")
	must(h.t, syscall.Mkfifo(out, 0o600))
	pipe, err := os.OpenFile(out, os.O_RDWR, 0) // both ends, so that no opening waits for another
	must(h.t, err)
	defer pipe.Close()
	const end = 0
	text := make(chan string, 1)
	go func() {
		all, _ := bufio.NewReader(pipe).ReadString(end)
		text <- strings.TrimSuffix(all, string(rune(end)))
	}()
	ctx := h.t.Context()
	process, err := h.client.Exec(ctx, l.Tenant, l.UID, runtime.ExecOptions{ID: "e" + filepath.Base(filepath.Dir(out)), Args: args, Stdout: out, Stderr: out})
	must(h.t, err)
	_, err = process.Start(ctx, time.Minute)
	must(h.t, err)
	_, err = process.Wait(ctx)
	must(h.t, err)
	must(h.t, process.Delete(ctx)) // what it wrote has come
	_, err = pipe.Write([]byte{end})
	must(h.t, err)
	return <-text
}

// audited fails the test unless every control of the instance holds.
func (h *host) audited(l isolation.Lease) {
	h.t.Helper()
	controls, err := h.room.Audit(h.t.Context(), l)
	must(h.t, err)
	for _, c := range controls {
		if !c.Pass {
			h.t.Errorf("%s: control %s %s: expected %s, found %s", l.UID, c.ID, c.Name, c.Expected, c.Found)
		}
	}
}

// pid is the host's number of the instance's first process.
func (h *host) pid(l isolation.Lease) int {
	h.t.Helper()
	state, err := h.client.State(h.t.Context(), l.Tenant, l.UID)
	must(h.t, err)
	return state.Task.Pid
}

func lines(text string) []string { return strings.Split(strings.TrimSpace(text), "\n") }
