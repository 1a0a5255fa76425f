package e2e_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/config"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

// patience is how long the host may take to become what it should be.
const patience = 30 * time.Second

// The uplink of the host and the one machine at its other end.
const (
	hostAddress    = "198.51.100.1"
	outsideAddress = "198.51.100.2"
	outsideNetns   = "outside"
)

// host is one gpuhost host: a root, settings, an uplink, and at most one agent.
type host struct {
	t        *testing.T
	binary   string
	root     string
	settings string
	logFile  string
	id       string
	image    string // an archive of busybox

	agent *agent // the last one started; shared by the parts of a test
}

// agent is one agent process.
type agent struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when it has ended
}

// newHost makes a host without an agent. When the test ends the agent is taken
// off it and nothing may be left.
func newHost(t *testing.T) *host {
	t.Helper()
	hosttest.Need(t, "go", "ip", "nft")
	runtimeDir := hosttest.RuntimeDir(t)
	warden := hosttest.Build(t, "./isolation/warden")
	hosttest.Build(t, "./isolation/warden/services/daemon") // beside warden, as when installed
	helper := hosttest.BuildCgo(t, "./drivers/nvml/helper")
	image := hosttest.BusyboxArchive(t)
	makeUplink(t)
	// A short name: shims need their sockets' folder in 42 characters.
	root, err := os.MkdirTemp("", "gh")
	if err != nil {
		t.Fatal(err)
	}
	// MkdirTemp makes it 0700, and a tenant's mapped root must pass through.
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	h := &host{
		t: t, binary: hosttest.Build(t, ".", "crashtest"), root: root, id: config.HostID(root), image: image,
		agent: &agent{}, settings: filepath.Join(t.TempDir(), "gpuhost.toml"), logFile: filepath.Join(t.TempDir(), "agent.log"),
	}
	text := fmt.Sprintf("[runtime]\ndir = %q\n[programs]\nnvml_helper = %q\nwarden = %q\n[images]\nlocal_registries = [%q]\n", runtimeDir, helper, warden, registryAddress)
	writeFile(t, h.settings, text)
	h.makeNodes()
	hosttest.NoLeaks(t, h.id)
	t.Cleanup(h.remove)
	return h
}

// makeUplink gives the test's network namespace a default route to a machine
// outside.
func makeUplink(t *testing.T) {
	t.Helper()
	if err := os.MkdirAll("/run/netns", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"netns add " + outsideNetns,
		"link add uplink0 type veth peer name eth0 netns " + outsideNetns,
		"addr add " + hostAddress + "/24 dev uplink0", "link set uplink0 up",
		"-n " + outsideNetns + " addr add " + outsideAddress + "/24 dev eth0",
		"-n " + outsideNetns + " link set eth0 up", "-n " + outsideNetns + " link set lo up",
		"route add default via " + outsideAddress,
	} {
		runTool(t, "ip", strings.Fields(line)...)
	}
	t.Cleanup(func() {
		runTool(t, "ip", "link", "del", "uplink0") // a namespace takes its links away only some time later
		runTool(t, "ip", "netns", "del", outsideNetns)
	})
}

func runTool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// start starts an agent and returns when it says that it is ready. False: it
// ended before, as one with a crash point does.
func (h *host) start(env ...string) bool {
	h.t.Helper()
	ready := h.listenNotify()
	log, err := os.OpenFile(h.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		h.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(h.binary, "agent", "--sim", "dgx-h100", "--root", h.root, "--config", h.settings)
	cmd.Env = append(append(os.Environ(), "NOTIFY_SOCKET="+h.notifySocket()), env...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	exited := make(chan struct{})
	*h.agent = agent{cmd, exited}
	go func() {
		_ = cmd.Wait() // how it ended shows in its log
		close(exited)
	}()
	select {
	case <-ready:
		return true
	case <-h.agent.exited:
		return false
	case <-time.After(patience):
		h.t.Fatalf("no agent was ready in %s:\n%s", patience, h.log())
		return false
	}
}

// mustStart starts an agent that is to live.
func (h *host) mustStart() {
	h.t.Helper()
	if !h.start() {
		h.t.Fatalf("the agent ended:\n%s", h.log())
	}
}

func (h *host) notifySocket() string { return filepath.Join(h.root, "notify.sock") }

// listenNotify plays the service manager: the channel is closed at READY=1.
func (h *host) listenNotify() <-chan struct{} {
	h.t.Helper()
	_ = os.Remove(h.notifySocket()) // of the agent before
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: h.notifySocket(), Net: "unixgram"})
	if err != nil {
		h.t.Fatal(err)
	}
	ready := make(chan struct{})
	h.t.Cleanup(func() { conn.Close() })
	go func() {
		defer conn.Close()
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			if strings.Contains(string(buf[:n]), "READY=1") {
				close(ready)
				return
			}
		}
	}()
	return ready
}

// kill ends the agent as a crash would.
func (h *host) kill() {
	h.t.Helper()
	if err := h.agent.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		h.t.Fatal(err)
	}
	<-h.agent.exited
}

// stop ends the agent as a service manager does.
func (h *host) stop() {
	h.t.Helper()
	if h.agent.cmd == nil {
		return
	}
	_ = h.agent.cmd.Process.Signal(os.Interrupt) // it may have ended
	select {
	case <-h.agent.exited:
	case <-time.After(patience):
		h.t.Errorf("the agent did not end in %s after SIGINT", patience)
		h.kill()
	}
}

func (h *host) alive() bool {
	select {
	case <-h.agent.exited:
		return false
	default:
		return true
	}
}

// remove deletes every tenant's instances and takes the agent off the host.
func (h *host) remove() {
	if h.t.Failed() {
		h.t.Logf("the agent's log ends:\n%s", tail(h.log(), 60))
	}
	defer h.sweep()
	if h.agent.cmd != nil {
		h.kill() // it may have a crash point
	}
	h.mustStart()
	names := []string{}
	for _, o := range h.instances() {
		names = append(names, o.Metadata.Tenant+"/"+o.Metadata.Name)
	}
	if len(names) > 0 {
		h.expect(0, append([]string{"rm", "--yes"}, names...)...)
	}
	eventually(h.t, func() error { return forwards("0") }) // the last network is gone
	h.stop()
	out := h.gpuhost("agent", "--remove", "--root", h.root, "--config", h.settings)
	if out.code != 0 {
		h.t.Errorf("agent --remove: exit code %d\n%s", out.code, out.stderr)
	}
	if left, err := nftTables(); err != nil || strings.Contains(left, h.id) {
		h.t.Errorf("tables left: %s %v", left, err)
	}
	_ = unix.Unmount(filepath.Join(h.root, "var/lib"), 0) // where a test made it a file system of its own
	if err := os.RemoveAll(h.root); err != nil {
		h.t.Error(err)
	}
}

// sweep takes away the cgroups of a host that could not be removed: they are the
// one thing that outlives the test's namespaces.
func (h *host) sweep() {
	top := "/sys/fs/cgroup/gpuhost-" + h.id
	if os.WriteFile(top+"/cgroup.kill", []byte("1"), 0o600) != nil {
		return // it is gone, as it should
	}
	eventually(h.t, func() error {
		var dirs []string
		err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for _, dir := range slices.Backward(dirs) {
			err = errors.Join(err, os.Remove(dir))
		}
		return err
	})
}

// forwards checks whether the uplink does.
func forwards(want string) error {
	text, err := os.ReadFile("/proc/sys/net/ipv4/conf/uplink0/forwarding")
	if got := strings.TrimSpace(string(text)); err == nil && got != want {
		return fmt.Errorf("forwarding of the uplink is %s, want %s", got, want)
	}
	return err
}

func nftTables() (string, error) {
	out, err := exec.Command("nft", "list", "tables").CombinedOutput()
	return string(out), err
}

func (h *host) log() string {
	text, err := os.ReadFile(h.logFile)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// result is how a command line ended.
type result struct {
	stdout, stderr string
	code           int
}

func (r result) String() string {
	return fmt.Sprintf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
}

// gpuhost runs the command line against this host's agent.
func (h *host) gpuhost(args ...string) result { return h.gpuhostIn(nil, args...) }

func (h *host) gpuhostIn(stdin io.Reader, args ...string) result {
	h.t.Helper()
	cmd := h.command(args...)
	cmd.Stdin = stdin
	return finish(h.t, cmd)
}

func (h *host) command(args ...string) *exec.Cmd {
	cmd := exec.Command(h.binary, args...)
	cmd.Env = append(os.Environ(), "GPUHOST_HOST=unix://"+config.PathsBelow(h.root).Socket(), "NO_COLOR=1")
	return cmd
}

// finish runs a command to its end.
func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// expect runs a command line that must end with code.
func (h *host) expect(code int, args ...string) result {
	h.t.Helper()
	out := h.gpuhost(args...)
	if out.code != code {
		h.t.Fatalf("gpuhost %s: %s\nwant exit code %d", strings.Join(args, " "), out, code)
	}
	return out
}

// apply applies a document that must be accepted and come about.
func (h *host) apply(document string) {
	h.t.Helper()
	if out := h.gpuhostIn(strings.NewReader(document), "apply", "--yes", "-f", "-"); out.code != 0 {
		h.t.Fatalf("apply: %s", out)
	}
}

// list reads all objects of a kind through the API.
func (h *host) list(kind string) ([]*spec.Object, error) {
	h.t.Helper()
	out := h.gpuhost("get", kind, "-o", "json")
	if out.code != 0 {
		return nil, fmt.Errorf("get %s: %s", kind, out)
	}
	var list struct{ Items []*spec.Object }
	if err := json.Unmarshal([]byte(out.stdout), &list); err != nil {
		return nil, fmt.Errorf("read %s: %w\n%s", kind, err, out.stdout)
	}
	return list.Items, nil
}

// instances reads all instances through the API.
func (h *host) instances() []*spec.Object {
	h.t.Helper()
	objects, err := h.list("instances")
	if err != nil {
		h.t.Fatal(err)
	}
	return objects
}

// instance reads one instance, named tenant/name.
func (h *host) instance(name string) *spec.Object {
	h.t.Helper()
	for _, o := range h.instances() {
		if o.Metadata.Tenant+"/"+o.Metadata.Name == name {
			return o
		}
	}
	h.t.Fatalf("no instance %s", name)
	return nil
}

// eventually looks until look is content. What it looks at (the kernel, another
// process) tells nobody when it changes.
func eventually(t *testing.T, look func() error) {
	t.Helper()
	within(t, patience, look)
}

// within is eventually with a patience of its own.
func within(t *testing.T, patience time.Duration, look func() error) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := look()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("not in %s: %v", patience, err)
		case <-tick.C:
		}
	}
}
