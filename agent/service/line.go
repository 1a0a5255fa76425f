package service

import (
	"fmt"
	"strings"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// Line is how a host is in one line, what needs a person first: for `systemctl
// status`, where there is room for no more.
func Line(s api.HostStatus) string {
	var parts []string
	for _, p := range s.Parts {
		if !p.Ready {
			parts = append(parts, p.Name+" is not ready")
		}
	}
	switch n := len(s.Problems); n {
	case 0:
	case 1:
		parts = append(parts, "1 problem ("+s.Problems[0].Name+")")
	default:
		parts = append(parts, fmt.Sprintf("%d problems (%s, …)", n, s.Problems[0].Name))
	}
	all := 0
	for _, n := range s.Instances {
		all += n
	}
	parts = append(parts,
		fmt.Sprintf("%d of %d instances running", s.Instances[spec.PhaseRunning], all),
		fmt.Sprintf("%d of %d GPUs free", s.Capacity.GPUsFree, s.Capacity.GPUs))
	return strings.Join(parts, "; ")
}
