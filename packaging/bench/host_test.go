package bench_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/client"
	"github.com/gpuhost/gpuhost/agent/config"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

// patience is how long anything may take here, and how much longer for each
// instance there is: a busy machine starts one in a second or two.
const (
	patience      = 2 * time.Minute
	patienceOfOne = 3 * time.Second
)

// host is one gpuhost host with an agent on it.
type host struct {
	b      *testing.B
	binary string
	root   string
	env    []string
	image  string // an archive of busybox
	agent  *exec.Cmd
	many   int // instances
	api    *client.Client
}

// newHost starts an agent on a simulated machine, and removes it and all it made
// when the benchmark ends.
func newHost(b *testing.B) *host {
	b.Helper()
	hosttest.Need(b, "go", "ip", "nft")
	helper := hosttest.BuildCgo(b, "./drivers/nvml/helper")
	warden := hosttest.Build(b, "./isolation/warden")
	hosttest.Build(b, "./isolation/warden/services/daemon") // beside warden, as when installed
	// A short name: shims need their sockets' folder in 42 characters.
	root, err := os.MkdirTemp("", "gb")
	if err != nil {
		b.Fatal(err)
	}
	// A tenant's mapped root must pass through.
	if err := os.Chmod(root, 0o755); err != nil {
		b.Fatal(err)
	}
	h := &host{b: b, binary: hosttest.Build(b, "."), root: root, image: hosttest.BusyboxArchive(b)}
	h.write("gpuhost.toml", fmt.Sprintf("[runtime]\ndir = %q\n[programs]\nnvml_helper = %q\nwarden = %q\n[log]\nlevel = \"warn\"\n[network]\nuplink = \"uplink0\"\n",
		hosttest.RuntimeDir(b), helper, warden))
	socket := "unix://" + config.PathsBelow(root).Socket()
	h.env = append(os.Environ(), "GPUHOST_HOST="+socket, "NO_COLOR=1")
	if h.api, err = client.New(socket); err != nil {
		b.Fatal(err)
	}
	makeUplink(b)
	b.Cleanup(h.remove)
	h.start()
	return h
}

// makeUplink gives the namespace a machine outside.
func makeUplink(b *testing.B) {
	b.Helper()
	if _, err := os.Stat("/run/netns/outside"); err == nil {
		return // of a benchmark before
	}
	if err := os.MkdirAll("/run/netns", 0o755); err != nil {
		b.Fatal(err)
	}
	for _, line := range []string{
		"netns add outside", "link add uplink0 type veth peer name eth0 netns outside",
		"addr add 198.51.100.1/24 dev uplink0", "link set uplink0 up",
		"-n outside addr add 198.51.100.2/24 dev eth0", "-n outside link set eth0 up",
		"route add default via 198.51.100.2",
	} {
		must(b, exec.Command("ip", strings.Fields(line)...))
	}
}

// must runs a command that has to succeed, and returns what it printed.
func must(b *testing.B, cmd *exec.Cmd) string {
	b.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		b.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

func (h *host) write(name, text string) string {
	h.b.Helper()
	path := filepath.Join(h.root, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		h.b.Fatal(err)
	}
	return path
}

// start starts an agent and returns how long it took until its API answered.
func (h *host) start() time.Duration {
	h.b.Helper()
	log, err := os.OpenFile(filepath.Join(h.root, "agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		h.b.Fatal(err)
	}
	defer log.Close()
	h.agent = exec.Command(h.binary, "agent", "--sim", "dgx-h100", "--root", h.root, "--config", filepath.Join(h.root, "gpuhost.toml"))
	h.agent.Stdout, h.agent.Stderr = log, log
	begin := time.Now()
	if err := h.agent.Start(); err != nil {
		h.b.Fatal(err)
	}
	h.eventually("the API answers", func(ctx context.Context) error {
		_, err := h.api.Status(ctx)
		return err
	})
	return time.Since(begin)
}

// kill ends the agent as a crash would.
func (h *host) kill() {
	h.b.Helper()
	if err := h.agent.Process.Kill(); err != nil {
		h.b.Fatal(err)
	}
	_ = h.agent.Wait() // killed
}

// eventually asks again and again until done has no error: what it asks about
// tells nobody when it changes.
func (h *host) eventually(what string, done func(context.Context) error) {
	h.b.Helper()
	limit := patience + time.Duration(h.many)*patienceOfOne
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		err := done(ctx)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			h.b.Fatalf("not in %s: %s: %v\n%s", limit, what, err, h.logEnd())
		}
	}
}

func (h *host) logEnd() string {
	text, err := os.ReadFile(filepath.Join(h.root, "agent.log"))
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-8000):])
}

func (h *host) command(args ...string) *exec.Cmd {
	cmd := exec.Command(h.binary, args...)
	cmd.Env = h.env
	return cmd
}

// gpuhost runs the command line, which has to succeed.
func (h *host) gpuhost(args ...string) string {
	h.b.Helper()
	return must(h.b, h.command(args...))
}

// task is what every instance and every peer runs: it ends when it is asked to.
var task = [...]string{"sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait"}

// runArgs are those of "gpuhost run" for one small instance.
func (h *host) runArgs(name string, gpus int) []string {
	args := []string{"run", "--tenant", "acme", "--name", name, "--cpus", "0.01", "--memory", "16MiB", "oci-archive:" + h.image}
	if gpus > 0 {
		args = append(args, "--gpus", fmt.Sprint(gpus))
	}
	return append(append(args, "--"), task[:]...)
}

// running says how many instances run, as an error where they are not n.
func (h *host) running(ctx context.Context, n int) error {
	list, err := h.api.List(ctx, spec.KindInstance, "")
	if err != nil {
		return err
	}
	count := 0
	for _, o := range list {
		if o.Status != nil && o.Status.Phase == spec.PhaseRunning {
			count++
		}
	}
	if count != n {
		return fmt.Errorf("%d instances run, not %d", count, n)
	}
	return nil
}

// fill has n instances run; the first of them hold the GPUs that there are.
func (h *host) fill(n int) {
	h.b.Helper()
	h.many = n
	withGPU := min(8, n)
	for i := range withGPU {
		h.gpuhost(append([]string{"--no-wait"}, h.runArgs(fmt.Sprintf("gpu-%d", i), 1)...)...)
	}
	if n > withGPU {
		h.gpuhost(append([]string{"--no-wait", fmt.Sprintf("--count=%d", n-withGPU)}, h.runArgs("cpu", 0)...)...)
	}
	h.eventually("all run", func(ctx context.Context) error { return h.running(ctx, n) })
}

// freeGPUs counts the GPUs that can be given away.
func (h *host) freeGPUs(ctx context.Context) (int, error) {
	gpus, err := h.api.GPUs(ctx)
	count := 0
	for _, g := range gpus {
		if strings.EqualFold(string(g.State), "free") {
			count++
		}
	}
	return count, err
}

// change reads the steps of the change that an instance's start was.
func (h *host) change(ctx context.Context, name string) api.Change {
	h.b.Helper()
	list, err := h.api.Changes(ctx, api.ChangeQuery{Limit: 50, Tenant: "acme"})
	if err != nil {
		h.b.Fatal(err)
	}
	for _, c := range list {
		if c.Object.Kind == spec.KindInstance && c.Object.Name == name {
			full, err := h.api.Change(ctx, c.ID)
			if err != nil {
				h.b.Fatal(err)
			}
			return full
		}
	}
	h.b.Fatalf("no change of %s", name)
	return api.Change{}
}

// remove takes tenants and agent off, and sweeps what a failed run left.
func (h *host) remove() {
	if h.b.Failed() {
		h.b.Log(h.logEnd())
	}
	h.removeInstances()
	_ = h.agent.Process.Signal(syscall.SIGTERM) // it may have been killed
	_ = h.agent.Wait()
	if out, err := h.command("agent", "--remove", "--root", h.root, "--config", filepath.Join(h.root, "gpuhost.toml")).CombinedOutput(); err != nil {
		h.b.Logf("remove the agent: %v\n%s", err, out)
	}
	sweepCgroups("gpuhost-" + config.HostID(h.root))
	if err := os.RemoveAll(h.root); err != nil {
		h.b.Log(err)
	}
}

// removeInstances deletes what still runs.
func (h *host) removeInstances() {
	args := []string{"rm", "--yes"}
	list, err := h.api.List(context.Background(), spec.KindInstance, "")
	if err != nil || len(list) == 0 {
		return // no agent: the failure has been told
	}
	for _, o := range list {
		args = append(args, o.Metadata.Tenant+"/"+o.Metadata.Name)
	}
	if out, err := h.command(args...).CombinedOutput(); err != nil {
		h.b.Logf("remove instances: %v: %s", err, out[max(0, len(out)-500):])
	}
}

// sweepCgroups removes empty cgroups below those with mark in their name,
// deepest first.
func sweepCgroups(mark string) {
	var found []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && strings.Contains(path, mark) {
			found = append(found, path)
		}
		return nil
	})
	for i := len(found) - 1; i >= 0; i-- {
		_ = os.Remove(found[i]) // not empty: something lives, and is shown by the kernel
	}
}
