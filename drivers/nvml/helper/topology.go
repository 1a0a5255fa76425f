//go:build cgo

package main

import (
	"slices"

	nvmllib "github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// lanes are one device's active NVLinks by what is at their other end.
type lanes struct {
	toSwitch int
	toGPU    map[gpu.PCIAddress]int
}

// topology says how all pairs are linked. It is read anew when the set of
// devices changed.
func (r *reader) topology(devices []gpu.Device, handles []nvmllib.Device) []gpu.Link {
	var ids []gpu.UUID
	for _, d := range devices {
		ids = append(ids, d.UUID)
	}
	if slices.Equal(ids, r.linked) {
		return r.links
	}
	active := make([]lanes, len(handles))
	for i, h := range handles {
		active[i] = nvlinks(h)
	}
	r.linked, r.links = ids, nil
	for a := range devices {
		for b := a + 1; b < len(devices); b++ {
			l := gpu.Link{A: ids[a], B: ids[b], Kind: gpu.LinkNVLink}
			l.Lanes = active[a].toGPU[devices[b].PCI] + min(active[a].toSwitch, active[b].toSwitch)
			if l.Lanes == 0 {
				l.Kind = pcie(handles[a], handles[b])
			}
			r.links = append(r.links, l)
		}
	}
	return r.links
}

func nvlinks(h nvmllib.Device) lanes {
	found := lanes{toGPU: map[gpu.PCIAddress]int{}}
	for i := range nvmllib.NVLINK_MAX_LINKS {
		if state, ret := h.GetNvLinkState(i); ret != nvmllib.SUCCESS || state != nvmllib.FEATURE_ENABLED {
			continue
		}
		if kind, ret := h.GetNvLinkRemoteDeviceType(i); ret == nvmllib.SUCCESS && kind == nvmllib.NVLINK_DEVICE_TYPE_SWITCH {
			found.toSwitch++
		} else if remote, ret := h.GetNvLinkRemotePciInfo(i); ret == nvmllib.SUCCESS {
			found.toGPU[address(remote)]++
		}
	}
	return found
}

func pcie(a, b nvmllib.Device) gpu.LinkKind {
	level, ret := a.GetTopologyCommonAncestor(b)
	switch {
	case ret != nvmllib.SUCCESS:
		return gpu.LinkSystem
	case level <= nvmllib.TOPOLOGY_MULTIPLE:
		return gpu.LinkPIX
	case level <= nvmllib.TOPOLOGY_NODE:
		return gpu.LinkNode
	default:
		return gpu.LinkSystem
	}
}
