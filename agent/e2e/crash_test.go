package e2e_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gpuhost/gpuhost/agent/spec"
)

// crashDocument is two tenants with an instance and two GPUs each. Neighbours
// never have a part in it.
const crashDocument = `
{apiVersion: gpuhost/v1, kind: Tenant, metadata: {name: acme}, spec: {}}
---
{apiVersion: gpuhost/v1, kind: Tenant, metadata: {name: globex}, spec: {}}
---
apiVersion: gpuhost/v1
kind: Instance
metadata: {tenant: acme, name: a}
spec:
  image: "oci-archive:IMAGE"
  command: [sh, -c, "trap 'exit 0' TERM; COMMAND; sleep 1000000 & wait"]
  state: STATE
  stopGrace: 2s
  resources: {cpus: 0.1, memory: 64MiB}
  gpus: {count: 2}
---
apiVersion: gpuhost/v1
kind: Instance
metadata: {tenant: globex, name: b}
spec:
  image: "oci-archive:IMAGE"
  command: [sh, -c, "trap 'exit 0' TERM; COMMAND; sleep 1000000 & wait"]
  state: STATE
  stopGrace: 2s
  resources: {cpus: 0.1, memory: 64MiB}
  gpus: {count: 2}
`

// mark is what the first command leaves in the instance's own layer.
const mark = "first was here"

// phase is one thing the crash test does to both tenants.
type phase struct {
	name string
	do   func() result
	done func([]*spec.Object) error // of the two instances
}

// crashTest is a host with a bystander that nothing may disturb.
type crashTest struct {
	*host
	steady string // the bystander's process, as processOf says it
}

// TestCrash kills the agent at the n-th moment before or after a step of running,
// changing, stopping and deleting two tenants' instances, for every n there is.
// After each crash a new agent must bring the host to where it should be.
func TestCrash(t *testing.T) {
	c := &crashTest{host: newHost(t)}
	c.mustStart()
	c.run("steady", "s", []string{"--gpus", "1"}, "sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait")
	c.steady = c.processOf("steady/s")
	phases := c.phases()
	points := make([]int, len(phases)) // -1 when all of a phase's are visited
	for n := 1; slices.ContainsFunc(points, func(p int) bool { return p >= 0 }); n++ {
		begin := time.Now()
		for i, p := range phases {
			switch {
			case points[i] < 0:
				c.calm(p)
			case c.crash(p, n):
				points[i]++
			default:
				t.Logf("%s: %d crash points visited", p.name, points[i])
				points[i] = -1
			}
		}
		t.Logf("round %d took %s", n, time.Since(begin).Round(time.Millisecond))
	}
}

func (c *crashTest) phases() []phase {
	first := c.document("[ -e /kept ] || echo "+mark+" >/kept", "running")
	second := c.document("true", "running")
	stopped := c.document("true", "stopped")
	return []phase{
		{"run", c.applying(first), c.bothRun},
		{"change", c.applying(second), c.bothRunOn},
		{"stop", c.applying(stopped), bothStopped},
		{"delete", func() result {
			return c.gpuhostIn(strings.NewReader(stopped), "delete", "--yes", "-f", "-")
		}, c.bothGone},
	}
}

func (c *crashTest) document(command, state string) string {
	return strings.NewReplacer("IMAGE", c.image, "COMMAND", command, "STATE", state).Replace(crashDocument)
}

func (c *crashTest) applying(document string) func() result {
	return func() result { return c.gpuhostIn(strings.NewReader(document), "apply", "--yes", "-f", "-") }
}

// calm does a phase without a crash.
func (c *crashTest) calm(p phase) {
	c.t.Helper()
	if out := p.do(); out.code != 0 {
		c.t.Fatalf("%s: %s", p.name, out)
	}
	c.converges(p)
}

// crash does a phase with an agent that dies at point n, and lets the next one
// bring it to its end. It says whether the point was reached. The command line
// that asked for it waits through the crash.
func (c *crashTest) crash(p phase, n int) bool {
	c.t.Helper()
	c.kill()
	asked := make(chan result, 1)
	if c.start(fmt.Sprintf("GPUHOST_CRASH_AT=%d", n)) {
		go func() { asked <- p.do() }()
	} else {
		asked <- result{code: -1} // there was nobody to ask
	}
	select {
	case <-c.agent.exited:
	case out := <-asked:
		asked <- out
		c.waitCrashOr(p, out)
	}
	if c.alive() {
		c.kill() // its point lies ahead still and must not come in another phase
		c.mustStart()
		return false
	}
	where := tail(c.log(), 1)
	c.mustStart()
	if out := <-asked; out.code != 0 {
		c.again(p, where)
	}
	defer func() {
		if c.t.Failed() {
			c.t.Logf("%s was killed at: %s", p.name, where)
		}
	}()
	c.converges(p)
	return true
}

// waitCrashOr waits for the crash or for the end of what follows a command that
// has been answered: hand-over, names, the next look.
func (c *crashTest) waitCrashOr(p phase, out result) {
	c.t.Helper()
	eventually(c.t, func() error {
		if !c.alive() {
			return nil
		}
		if out.code != 0 {
			return fmt.Errorf("%s without a crash: %s", p.name, out)
		}
		return c.is(p)
	})
}

// again asks once more for what the agent may have died before hearing.
func (c *crashTest) again(p phase, where string) {
	c.t.Helper()
	if out := p.do(); out.code != 0 && !isGone(p, out) {
		c.t.Fatalf("%s after %s: %s", p.name, where, out)
	}
}

// isGone: what was deleted before the crash cannot be found after it.
func isGone(p phase, out result) bool { return p.name == "delete" && out.code == 4 }

func (c *crashTest) converges(p phase) {
	c.t.Helper()
	eventually(c.t, func() error { return c.is(p) })
}

// is says what keeps a phase from being done: by its objects, by the kernel, and
// by the bystander.
func (c *crashTest) is(p phase) error {
	objects, err := c.list("instances")
	if err != nil {
		return err
	}
	steady := slices.IndexFunc(objects, func(o *spec.Object) bool { return o.Metadata.Tenant == "steady" })
	if steady < 0 {
		c.t.Fatal("the bystander is gone")
	}
	if err := inPhase(objects[steady], spec.PhaseRunning); err != nil {
		return err // an agent that has just begun has not looked yet
	}
	if now := c.process(objects[steady]); now != c.steady {
		c.t.Fatalf("the bystander was disturbed: %q, was %q", now, c.steady)
	}
	both := slices.Delete(slices.Clone(objects), steady, steady+1)
	if err := p.done(both); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	return c.check(expected(objects))
}

func inPhase(o *spec.Object, want spec.Phase) error {
	if o.Status == nil || o.Status.ObservedGeneration < o.Metadata.Generation || o.Status.Phase != want {
		return fmt.Errorf("%s is %+v, want %s", o.Ref(), o.Status, want)
	}
	return nil
}

func both(objects []*spec.Object, want spec.Phase) error {
	if len(objects) != 2 {
		return fmt.Errorf("%d instances, want 2", len(objects))
	}
	for _, o := range objects {
		if err := inPhase(o, want); err != nil {
			return err
		}
	}
	return nil
}

// bothRun: and the first command has left its mark.
func (c *crashTest) bothRun(objects []*spec.Object) error {
	if err := both(objects, spec.PhaseRunning); err != nil {
		return err
	}
	for _, o := range objects {
		path := fmt.Sprintf("/proc/%d/root/kept", o.Status.Instance.Pid)
		if text, err := os.ReadFile(path); strings.TrimSpace(string(text)) != mark {
			return fmt.Errorf("%s has no mark: %q, %v", o.Ref(), text, err)
		}
	}
	return nil
}

// bothRunOn: the second command runs, over the same layer.
func (c *crashTest) bothRunOn(objects []*spec.Object) error {
	if err := c.bothRun(objects); err != nil {
		return err
	}
	for _, o := range objects {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", o.Status.Instance.Pid))
		if err != nil || strings.Contains(string(line), mark) {
			return fmt.Errorf("%s still runs the first command: %v", o.Ref(), err)
		}
	}
	return nil
}

func bothStopped(objects []*spec.Object) error { return both(objects, spec.PhaseStopped) }

// bothGone: with everything of their tenants, and their GPUs free again.
func (c *crashTest) bothGone(objects []*spec.Object) error {
	if len(objects) != 0 {
		return fmt.Errorf("%s is left", objects[0].Ref())
	}
	tenants, err := c.list("tenants")
	if err != nil {
		return err
	}
	if len(tenants) != 1 {
		return fmt.Errorf("%d tenants, want the bystander's", len(tenants))
	}
	k, err := c.look()
	if err != nil {
		return err
	}
	if len(k.vpcs) != 1 {
		return fmt.Errorf("router namespaces %v, want the bystander's", k.vpcs)
	}
	if free := strings.Count(c.gpuhost("gpu", "list").stdout, "Free"); free != 7 {
		return fmt.Errorf("%d GPUs are free, want 7", free)
	}
	return nil
}

// processOf is an instance's process and when that began, in the kernel's words.
func (h *host) processOf(name string) string {
	h.t.Helper()
	return h.process(h.instance(name))
}

func (h *host) process(o *spec.Object) string {
	h.t.Helper()
	if o.Status == nil || o.Status.Instance == nil {
		return ""
	}
	pid := o.Status.Instance.Pid
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return err.Error()
	}
	const started = 19 // fields after the command's closing bracket, proc(5)
	_, rest, _ := strings.Cut(string(stat), ") ")
	return fmt.Sprintf("process %d since %s", pid, strings.Fields(rest)[started])
}
