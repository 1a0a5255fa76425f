package isolation

import (
	"testing"

	"github.com/google/go-cmp/cmp"

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
