package e2e_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
	"github.com/gpuhost/gpuhost/packaging/lab/ociimage"
)

// uid is the kernel-side name of an instance.
func (h *host) uid(name string) string { return string(h.instance(name).Metadata.UID) }

// expected is what must be true of instances that are as their phases say.
func expected(objects []*spec.Object) expectation {
	want := expectation{}
	for _, o := range objects {
		want[string(o.Metadata.UID)] = notRunning
		if o.Status != nil && o.Status.Phase == spec.PhaseRunning {
			want[string(o.Metadata.UID)] = o.Spec.(*spec.InstanceSpec).GPUs.Count
		}
	}
	return want
}

// settled waits until kernel and containerd are as the phases say.
func (h *host) settled() {
	h.t.Helper()
	eventually(h.t, func() error { return h.check(expected(h.instances())) })
}

func (h *host) run(tenant, name string, flags []string, command ...string) {
	h.t.Helper()
	args := append([]string{"run", "--tenant", tenant, "--name", name, "--memory", "64MiB"}, flags...)
	args = append(append(args, "oci-archive:"+h.image), "--")
	h.expect(0, append(args, command...)...)
}

// twoTenants is what most tests begin with. b echoes on the ports 7000 and 7001.
const twoTenants = `
{apiVersion: gpuhost/v1, kind: Tenant, metadata: {name: acme}, spec: {quota: {gpus: 4}}}
---
{apiVersion: gpuhost/v1, kind: Tenant, metadata: {name: globex}, spec: {}}
---
{apiVersion: gpuhost/v1, kind: Secret, metadata: {tenant: acme, name: login}, spec: {data: {token: "TOKEN"}}}
---
apiVersion: gpuhost/v1
kind: SecurityGroup
metadata: {tenant: globex, name: web}
spec:
  ingress: [{action: accept, protocol: tcp, ports: "PORTS", remote: 0.0.0.0/0}]
  egress: [{action: accept, protocol: all, remote: 0.0.0.0/0}]
---
apiVersion: gpuhost/v1
kind: Instance
metadata: {tenant: acme, name: a}
spec:
  image: "oci-archive:IMAGE"
  command: [sh, -c, "trap 'exit 0' TERM; echo a is up; while :; do date +%s.%N; sleep 0.2 & wait; done"]
  env: {TOKEN: {secret: login/token}}
  stopGrace: 2s
  resources: {cpus: 0.1, memory: 64MiB}
  gpus: {count: 2}
---
apiVersion: gpuhost/v1
kind: Instance
metadata: {tenant: globex, name: b}
spec:
  image: "oci-archive:IMAGE"
  command: [sh, -c, "trap 'exit 0' TERM; nc -ll -p 7000 -e cat & nc -ll -p 7001 -e cat & wait"]
  stopGrace: 2s
  resources: {cpus: 0.1, memory: 64MiB}
  gpus: {count: 2}
  network: {securityGroups: [web], address: 10.0.1.20}
  publish: ["7000:7000/tcp", "7001:7001/tcp"]
`

// token is a value that may be seen nowhere but in its instance.
const token = "sesame-8a3f-open"

func (h *host) twoTenants(ports string) string {
	return strings.NewReplacer("IMAGE", h.image, "TOKEN\"", token+"\"", "PORTS", ports).Replace(twoTenants)
}

// TestLife is the whole life of instances of two tenants on one host.
func TestLife(t *testing.T) {
	h := newHost(t)
	h.mustStart()
	h.apply(h.twoTenants("7000,7001"))
	h.settled()
	for _, step := range []struct {
		name string
		test func(*testing.T, *host)
	}{
		{"logs", logs}, {"exec", execs}, {"secrets are seen by their instance only", secrets},
		{"network", networks}, {"one-packet flows are metered", metering},
		{"stop, start, restart", verbs}, {"a failing job is restarted", restarts},
		{"what the image says", imageConfig}, {"count and quota", countAndQuota},
	} {
		t.Run(step.name, func(t *testing.T) { step.test(t, h.of(t)) })
	}
	h.settled()
	if out := h.expect(0, "audit"); strings.Contains(out.stdout, "FAIL") {
		t.Error(out)
	}
}

// of is the host as seen by a part of its test.
func (h *host) of(t *testing.T) *host {
	part := *h
	part.t = t
	return &part
}

func logs(t *testing.T, h *host) {
	eventually(t, func() error {
		if out := h.expect(0, "logs", "acme/a").stdout; !strings.HasPrefix(out, "a is up\n") {
			return fmt.Errorf("the log is %q", out)
		}
		return nil
	})
}

func execs(t *testing.T, h *host) {
	if out := h.gpuhost("exec", "acme/a", "--", "sh", "-c", "echo out; echo err >&2; exit 42"); out != (result{"out\n", "err\n", 42}) {
		t.Errorf("exec: %s", out)
	}
	if out := h.gpuhostIn(strings.NewReader("round trip"), "exec", "-i", "acme/a", "--", "cat"); out != (result{"round trip", "", 0}) {
		t.Errorf("exec -i: %s", out)
	}
	person, program := terminal(t)
	cmd := h.command("exec", "-it", "acme/a", "--", "sh", "-c", "test -t 0 && stty size; read line; echo got $line; exit 7")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := person.WriteString("hello\n"); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // its code is compared below
	program.Close()
	screen := readAll(person)
	if code := cmd.ProcessState.ExitCode(); code != 7 || !strings.Contains(screen, "24 80") || !strings.Contains(screen, "got hello") {
		t.Errorf("exec -it: exit code %d\n%s", code, screen)
	}
}

// terminal makes a pseudo-terminal of 80 by 24: a person's side and a program's.
func terminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { person.Close() })
	number, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(program.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: 80, Row: 24}); err != nil {
		t.Fatal(err)
	}
	return person, program
}

// readAll reads a terminal until its other side is closed, which it says with EIO.
func readAll(f *os.File) string {
	var all strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := f.Read(buf)
		all.Write(buf[:n])
		if err != nil {
			return all.String()
		}
	}
}

func secrets(t *testing.T, h *host) {
	if out := h.expect(0, "exec", "acme/a", "--", "sh", "-c", "echo $TOKEN"); out.stdout != token+"\n" {
		t.Errorf("the instance sees %q", out.stdout)
	}
	for _, args := range [][]string{
		{"get", "secrets", "--tenant", "acme", "-o", "yaml"}, {"get", "instances", "-o", "json"}, {"describe", "instance", "acme/a"},
		{"describe", "secret", "acme/login"}, {"export"}, {"events"}, {"changes"}, {"audit"},
	} {
		if out := h.expect(0, args...); strings.Contains(out.String(), token) {
			t.Errorf("gpuhost %v shows the secret", args)
		}
	}
	if strings.Contains(h.log(), token) {
		t.Error("the agent's log shows the secret")
	}
	if db, err := os.ReadFile(h.root + "/var/lib/state.db"); err != nil || strings.Contains(string(db), token) {
		t.Errorf("the state file holds the secret in clear text, or %v", err)
	}
}

func verbs(t *testing.T, h *host) {
	h.expect(0, "exec", "acme/a", "--", "sh", "-c", "echo kept >/kept")
	before, other := h.processOf("acme/a"), h.processOf("globex/b")
	h.expect(0, "stop", "--yes", "acme/a")
	if o := h.instance("acme/a"); o.Status.Phase != spec.PhaseStopped || len(o.Status.Instance.GPUs) != 0 {
		t.Errorf("stopped: %+v %+v", o.Status, o.Status.Instance)
	}
	h.settled()
	h.expect(0, "start", "acme/a")
	started := h.processOf("acme/a")
	h.expect(0, "restart", "--yes", "acme/a")
	if again := h.processOf("acme/a"); again == started || started == before {
		t.Errorf("processes: %s, after start %s, after restart %s", before, started, again)
	}
	if out := h.expect(0, "exec", "acme/a", "--", "cat", "/kept"); out.stdout != "kept\n" {
		t.Errorf("the disk was not kept: %s", out)
	}
	if now := h.processOf("globex/b"); now != other {
		t.Errorf("b was disturbed: %s, was %s", now, other)
	}
	h.settled()
}

// restarts: the job fails twice, is done at the third time, rests and gives its
// GPU back.
func restarts(t *testing.T, h *host) {
	h.run("acme", "job", []string{"--gpus", "1", "--no-wait"}, "sh", "-c", "echo >>/runs; [ $(wc -l </runs) -ge 3 ]")
	h.expect(0, "wait", "--for=phase=Stopped", "--timeout", "30s", "acme/job")
	eventually(t, func() error {
		in := h.instance("acme/job").Status.Instance
		if in.Restarts != 2 || in.LastExit == nil || in.LastExit.Code != 0 || len(in.GPUs) != 0 {
			return fmt.Errorf("the job is %+v, last exit %+v", in, in.LastExit)
		}
		return nil
	})
	h.settled()
	h.expect(0, "rm", "--yes", "acme/job")
}

func imageConfig(t *testing.T, h *host) {
	archive := hosttest.BusyboxArchive(t, func(s *ociimage.Spec) {
		s.Config.User, s.Config.WorkingDir = "65534", "/tmp"
		s.Config.Env = append(s.Config.Env, "COLOUR=blue", "LD_PRELOAD=/evil.so", "NVIDIA_VISIBLE_DEVICES=all")
		s.Config.Cmd = []string{"sh", "-c", "trap 'exit 0' TERM; id -u; pwd; echo $COLOUR $NVIDIA_VISIBLE_DEVICES; sleep 1000000 & wait"}
	})
	h.expect(0, "run", "--tenant", "acme", "--name", "plain", "--memory", "64MiB", "oci-archive:"+archive)
	const want = "65534\n/tmp\nblue void\n"
	eventually(t, func() error {
		if out := h.expect(0, "logs", "acme/plain"); out.stdout != want {
			return fmt.Errorf("the instance says %q, want %q", out.stdout, want)
		}
		return nil
	})
	h.expect(0, "rm", "--yes", "acme/plain")
}

func countAndQuota(t *testing.T, h *host) {
	h.run("acme", "c", []string{"--count", "2", "--gpus", "1"}, "sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait")
	h.settled()
	out := h.expect(7, "run", "--tenant", "acme", "--name", "d", "--gpus", "1", "--memory", "64MiB", "oci-archive:"+h.image)
	if !strings.Contains(out.stderr, "quota") {
		t.Errorf("over quota: %s", out)
	}
	h.expect(0, "rm", "--yes", "acme/c-1", "acme/c-2")
	h.settled()
}
