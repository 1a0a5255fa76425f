package audit

import (
	"os/exec"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// inside runs busybox as the tenant's root in the container and says how it ended.
func (v *task) inside(args ...string) string {
	v.t.Helper()
	all := append([]string{"--root", v.state, "exec", string(v.lease.UID), "/bin/busybox"}, args...)
	out, err := exec.Command(v.runc, all...).CombinedOutput()
	if err == nil {
		return "ok"
	}
	return string(out)
}

// What a tenant's root tries, each refused, and the audit green afterwards: a
// tenant must not be able to make its own instance look broken.
func TestTenantCannotChangeItsControls(t *testing.T) {
	victim := newHost(t).create(newLease(1, 0, 1)).start()
	got := map[string]bool{}
	for name, args := range map[string][]string{
		"chmod own node":         {"chmod", "666", "/dev/nvidia0"},
		"remove own node":        {"rm", "/dev/nvidia0"},
		"mknod of another GPU":   {"mknod", "/dev/nvidia7", "c", "195", "7"},
		"mknod in tmp":           {"mknod", "/tmp/mem", "c", "1", "1"},
		"write the core pattern": {"sh", "-c", "echo x > /proc/sys/kernel/core_pattern"},
		"write a cgroup file":    {"sh", "-c", "echo 1 > /sys/fs/cgroup/cgroup.procs"},
		"mount":                  {"mount", "-t", "tmpfs", "x", "/tmp"},
		"unmount a mask":         {"umount", "/proc/interrupts"},
		"new namespaces":         {"unshare", "-U", "true"},
	} {
		got[name] = victim.inside(args...) == "ok"
	}
	want := map[string]bool{}
	for name := range got {
		want[name] = false
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("succeeded (-want +got):\n%s", diff)
	}
	if answer := victim.inside("sh", "-c", "echo x > /tmp/file && rm /tmp/file && echo > /dev/null"); answer != "ok" {
		t.Errorf("ordinary work: %s", answer)
	}
	if controls := victim.audit(); len(failed(controls)) > 0 {
		t.Errorf("afterwards:\n%s", text(controls))
	}
}

// While the tenant's processes come and go through exec, an audit never mistakes
// one that is on its way in for a breach.
func TestAuditDuringExec(t *testing.T) {
	victim := newHost(t).create(newLease(1, 0)).start()
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_ = exec.Command(victim.runc, "--root", victim.state, "exec", string(victim.lease.UID), "/bin/busybox", "true").Run()
			}
		}
	}()
	for range 25 {
		if controls := victim.audit(); len(failed(controls)) > 0 {
			t.Errorf("controls %v fail:\n%s", failed(controls), text(controls))
			break
		}
	}
	close(stop)
	<-done
}
