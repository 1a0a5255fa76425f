package isolation

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// Task and cgroup are two readings: what ends between them has an exit status,
// which containerd knows at once or a moment later.
func TestTaskThatEndsWhileItIsObserved(t *testing.T) {
	ended := func(f *fake) { f.end(7) }
	emptied := func(f *fake) { f.cgroup.Populated = false }
	known := Task{Status: TaskExited, Exit: &spec.ExitStatus{Code: 7, At: testTime}}
	unknown := Task{Status: TaskExited, Exit: &spec.ExitStatus{Unknown: true, At: testTime}}
	nothing := func(*fake) {}
	for _, tt := range []struct {
		name                string
		betweenReads, later func(*fake)
		want                Task
	}{
		{"containerd knows at once", ended, nothing, known},
		{"containerd knows a moment later", emptied, ended, known},
		{"containerd never knows", emptied, nothing, unknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := testLease()
			f := reached(t, want)
			f.onCgroup = func() { tt.betweenReads(f); f.onCgroup = nil }
			f.onAwait = func() { tt.later(f) }
			have, err := f.room().Observe(t.Context(), want)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, have.Container.Task); diff != "" {
				t.Errorf("task (-want +got):\n%s", diff)
			}
		})
	}
}

// Of a task that ends while it is audited every control fails. That once fenced an
// instance for good whose job was done.
func TestTaskThatEndsWhileItIsAudited(t *testing.T) {
	for _, tt := range []struct {
		name    string
		onAudit func(*fake)
		want    []string // failed controls
		fault   fault.Kind
	}{
		{"it ends", func(f *fake) { f.end(0) }, nil, fault.Conflict},
		{"it ends and containerd does not know yet", func(f *fake) { f.cgroup.Populated = false }, nil, fault.Conflict},
		{"it is gone", func(f *fake) { f.task = Task{} }, nil, fault.Conflict},
		{"another runs", func(f *fake) { f.task.Pid++ }, nil, fault.Conflict},
		{"it runs on", func(*fake) {}, []string{"I1"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := testLease()
			f := reached(t, want)
			f.badAudit, f.onAudit = true, func() { tt.onAudit(f) }
			controls, err := f.room().Audit(t.Context(), want)
			var failed []string
			for _, c := range controls {
				failed = append(failed, c.ID)
			}
			if diff := cmp.Diff(tt.want, failed); diff != "" || fault.KindOf(err) != tt.fault {
				t.Errorf("error %v, controls (-want +got):\n%s", err, diff)
			}
		})
	}
}
