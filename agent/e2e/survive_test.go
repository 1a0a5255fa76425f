package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/gpuhost/gpuhost/agent/spec"
)

// TestAgentKilledNoTenantNotices takes the agent, then containerd, then both away
// from tenants at work.
func TestAgentKilledNoTenantNotices(t *testing.T) {
	h := newHost(t)
	h.mustStart()
	h.apply(h.twoTenants("7000,7001"))
	h.settled()
	a, b := h.processOf("acme/a"), h.processOf("globex/b")
	wire := call(t, 7000)
	undisturbed := func(t *testing.T) {
		t.Helper()
		if err := wire.echo("still here"); err != nil {
			t.Errorf("the open connection: %v", err)
		}
		if nowA, nowB := h.processOf("acme/a"), h.processOf("globex/b"); nowA != a || nowB != b {
			t.Errorf("processes are %s and %s, were %s and %s", nowA, nowB, a, b)
		}
	}
	t.Run("the agent", func(t *testing.T) {
		withoutAgent(t, h.of(t), wire)
		h.mustStart()
		h.expect(0, "exec", "acme/a", "--", "touch", "/quiet")
		h.settled()
		undisturbed(t)
		if out := h.expect(0, "logs", "acme/a"); !strings.HasPrefix(out.stdout, "a is up\n") {
			t.Errorf("the log begins %q", out.stdout[:min(len(out.stdout), 80)])
		}
	})
	t.Run("containerd", func(t *testing.T) {
		h.killContainerd()
		// The API answers; that containerd is away, if it still is, makes it a 3.
		if out := h.gpuhost("status"); out.code != 0 && out.code != 3 {
			t.Errorf("status without containerd: %s", out)
		}
		undisturbed(t)
		h.run("acme", "later", nil, "sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait")
		h.settled()
		undisturbed(t)
	})
	t.Run("an end that nobody saw", func(t *testing.T) { unseenEnd(t, h.of(t)) })
	undisturbed(t)
}

// withoutAgent looks at what goes on while no agent runs.
func withoutAgent(t *testing.T, h *host, wire *line) {
	uid, pid := h.uid("acme/a"), h.instance("acme/a").Status.Instance.Pid
	talk := h.command("exec", "acme/a", "--", "sh", "-c", "while [ ! -e /quiet ]; do echo talk; echo >>/beat; done")
	var heard bytes.Buffer
	talk.Stdout = &heard
	if err := talk.Start(); err != nil {
		t.Fatal(err)
	}
	beat := fmt.Sprintf("/proc/%d/root/beat", pid)
	eventually(t, func() error { return grown(beat, 0) })
	h.kill()
	_ = talk.Wait() // it lost its agent
	if err := wire.echo("no agent"); err != nil {
		t.Errorf("the open connection: %v", err)
	}
	logs, err := filepath.Glob(filepath.Join(h.root, "var/lib/logs", uid, "*"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no log of a: %v", err)
	}
	size := sizeOf(logs...)
	eventually(t, func() error {
		if now := sizeOf(logs...); now <= size {
			return fmt.Errorf("a's log stands at %d bytes", now)
		}
		return nil
	})
	if out := runTool(t, "nsenter", "-t", strconv.Itoa(pid), "-m", "-n", "-r", "/bin/nslookup", "a"); !strings.Contains(out, "10.0.1.2") {
		t.Errorf("DNS without an agent: %s", out)
	}
	// What ran in the exec session must not be stuck writing to nobody.
	eventually(t, func() error {
		if len(processesOf("echo talk")) == 0 {
			return nil
		}
		return grown(beat, sizeOf(beat))
	})
}

func sizeOf(paths ...string) (sum int64) {
	for _, path := range paths {
		if st, err := os.Stat(path); err == nil {
			sum += st.Size()
		}
	}
	return sum
}

// grown waits for nothing: it says whether a file is larger than it was.
func grown(path string, was int64) error {
	if now := sizeOf(path); now <= was {
		return fmt.Errorf("%s has %d bytes", path, now)
	}
	return nil
}

// processesOf finds processes by a part of their command line, their own
// namespace's and the machine's.
func processesOf(part string) []int {
	var found []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		raw, err := os.ReadFile(dir + "/cmdline")
		if err != nil || !strings.Contains(strings.ReplaceAll(string(raw), "\x00", " "), part) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil && pid != os.Getpid() {
			found = append(found, pid)
		}
	}
	return found
}

// killContainerd ends this host's containerd as a crash would.
func (h *host) killContainerd() {
	h.t.Helper()
	pids := processesOf("containerd --config " + h.root)
	if len(pids) != 1 {
		h.t.Fatalf("containerd runs as %v, want one process", pids)
	}
	if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
		h.t.Fatal(err)
	}
}

// unseenEnd: a task ends while neither agent nor containerd runs. It is said once,
// and nothing is made up about how it ended.
func unseenEnd(t *testing.T, h *host) {
	h.run("acme", "once", []string{"--restart", "never", "--gpus", "1"}, "sleep", "1000000")
	pid := h.instance("acme/once").Status.Instance.Pid
	h.kill()
	h.killContainerd()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.mustStart()
	h.expect(0, "wait", "--for=phase=Failed", "--timeout", "30s", "acme/once")
	h.kill()
	h.mustStart()
	h.settled()
	o := h.instance("acme/once")
	if exit := o.Status.Instance.LastExit; o.Status.Phase != spec.PhaseFailed || exit == nil || !exit.Unknown && exit.Code != 137 {
		t.Errorf("once is %s, its last exit %+v", o.Status.Phase, exit)
	}
	said := 0
	for line := range strings.Lines(h.expect(0, "events").stdout) {
		if strings.Contains(line, "acme/once") && strings.Contains(line, "ended") {
			said++
		}
	}
	if said != 1 {
		t.Errorf("its end is said %d times:\n%s", said, h.expect(0, "events").stdout)
	}
}
