package agent

import (
	"fmt"
	"slices"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// silence knows every GPU that answered since the agent runs. One that stopped to
// answer is in no inventory any more, and would go unnoticed. Its owner is the one
// task that samples GPUs.
type silence struct {
	known map[gpu.UUID]gpu.Device
}

// look says of every GPU ever seen why it was not measured now; nil for one that
// was. hung are the indices that NVML does not come back from.
func (s *silence) look(devices []gpu.Device, samples []gpu.Sample, hung []int) map[gpu.UUID]error {
	if s.known == nil {
		s.known = make(map[gpu.UUID]gpu.Device)
	}
	for _, d := range devices {
		s.known[d.UUID] = d
	}
	out := make(map[gpu.UUID]error, len(s.known))
	for id, d := range s.known {
		switch {
		case slices.ContainsFunc(samples, func(m gpu.Sample) bool { return m.UUID == id }):
			out[id] = nil
		case slices.Contains(hung, d.Index):
			out[id] = silent(d, "a question to the driver about it does not come back; the other GPUs go on, it is asked again every few minutes")
		default:
			out[id] = silent(d, "it does not answer; it may have fallen off the bus")
		}
	}
	return out
}

func silent(d gpu.Device, why string) error {
	return fault.New(fault.Temporary, fmt.Sprintf("measure GPU %d (%s)", d.Index, d.PCI), "%s", why).
		WithHint("gpuhost events; dmesg | grep -i -e xid -e %s", d.PCI)
}
