package e2e_test

import (
	"fmt"
	"testing"

	"github.com/gpuhost/gpuhost/agent/spec"
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

func TestLife(t *testing.T) {
	h := newHost(t)
	h.mustStart()
	h.run("acme", "a", []string{"--gpus", "2"}, "sh", "-c", "echo hello; exec sleep 1000000")
	h.run("globex", "b", []string{"--gpus", "2"}, "sleep", "1000000")
	h.settled()
	fmt.Println(h.expect(0, "get", "instances", "-o", "wide").stdout)
}
