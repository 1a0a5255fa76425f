package service

import (
	"testing"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/spec"
)

func TestLine(t *testing.T) {
	busy := api.HostStatus{
		Instances: api.PhaseCounts{spec.PhaseRunning: 3, spec.PhaseFailed: 1},
		Capacity:  api.Capacity{GPUs: 8, GPUsFree: 2},
		Parts:     []api.PartStatus{{Name: "containerd"}, {Name: "nvml-helper", Ready: true}},
		Problems:  []api.Problem{{Name: "acme/a is Failed"}, {Name: "metrics"}},
	}
	one := busy
	one.Parts, one.Problems = nil, busy.Problems[:1]
	for _, row := range []struct {
		name   string
		status api.HostStatus
		want   string
	}{
		{"nothing is here", api.HostStatus{}, "0 of 0 instances running; 0 of 0 GPUs free"},
		{"one problem", one, "1 problem (acme/a is Failed); 3 of 4 instances running; 2 of 8 GPUs free"},
		{"what needs a person is first", busy, "containerd is not ready; 2 problems (acme/a is Failed, …); 3 of 4 instances running; 2 of 8 GPUs free"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if have := Line(row.status); have != row.want {
				t.Errorf("have %q\nwant %q", have, row.want)
			}
		})
	}
}
