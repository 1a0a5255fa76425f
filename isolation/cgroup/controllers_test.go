package cgroup

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
)

func TestARefusedControllerTakesNoOtherAlong(t *testing.T) {
	var enabled []string
	err := enableEach("/x", missing([]string{"cpu", "memory", "misc", "pids", "perf_event"}, []string{"misc"}), func(c string) error {
		if c == "cpu" {
			return unix.EINVAL
		}
		if c == "memory" {
			return unix.EBUSY
		}
		enabled = append(enabled, c)
		return nil
	})
	if diff := cmp.Diff([]string{"pids"}, enabled); diff != "" {
		t.Errorf("enabled (-want +got):\n%s", diff)
	}
	if !fault.Is(err, fault.Busy) || !strings.Contains(err.Error(), "controller cpu") || !strings.Contains(err.Error(), "controller memory") {
		t.Errorf("error %v", err)
	}
}
