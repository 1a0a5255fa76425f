package agent

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/gpuhost/gpuhost/drivers/gpu"
)

func TestWhichGPUsAreSilent(t *testing.T) {
	devices := []gpu.Device{{UUID: "GPU-a", Index: 0, PCI: "0000:1b:00.0"}, {UUID: "GPU-b", Index: 1}, {UUID: "GPU-c", Index: 2}}
	samples := []gpu.Sample{{UUID: "GPU-a"}, {UUID: "GPU-b"}, {UUID: "GPU-c"}}
	var s silence
	for _, step := range []struct {
		name    string
		devices []gpu.Device
		samples []gpu.Sample
		hung    []int
		want    map[gpu.UUID]string // part of the problem, "" for none
	}{
		{"all answer", devices, samples, nil, map[gpu.UUID]string{"GPU-a": "", "GPU-b": "", "GPU-c": ""}},
		{"one hangs and is left out, one is lost while a tenant has it", devices[1:], samples[1:2], []int{0},
			map[gpu.UUID]string{"GPU-a": "does not come back", "GPU-b": "", "GPU-c": "off the bus"}},
		{"they are back", devices, samples, nil, map[gpu.UUID]string{"GPU-a": "", "GPU-b": "", "GPU-c": ""}},
		{"the GPUs were numbered anew", []gpu.Device{{UUID: "GPU-b", Index: 0}}, samples[1:2], nil,
			map[gpu.UUID]string{"GPU-a": "off the bus", "GPU-b": "", "GPU-c": "off the bus"}},
	} {
		t.Run(step.name, func(t *testing.T) {
			found := s.look(step.devices, step.samples, step.hung)
			if got, want := slices.Sorted(maps.Keys(found)), slices.Sorted(maps.Keys(step.want)); !slices.Equal(got, want) {
				t.Fatalf("told of %v, want %v", got, want)
			}
			for name, want := range step.want {
				if err := found[name]; (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %v, want %q", name, err, want)
				}
			}
		})
	}
}
