//go:build cgo

package main

import (
	nvmllib "github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// lanes are one device's active NVLinks by what is at their other end.
type lanes struct {
	toSwitch int
	toGPU    map[gpu.PCIAddress]int
}

// links says how one GPU reaches others.
func (r *reader) links(index int, others []int) ([]gpu.Link, error) {
	h, err := r.handle(index)
	if err != nil {
		return nil, err
	}
	mine := r.active(index, h)
	var links []gpu.Link
	for _, other := range others {
		peer, err := r.handle(other)
		if err != nil {
			return nil, err
		}
		l := gpu.Link{A: gpu.UUID(optional(h.GetUUID())), B: gpu.UUID(optional(peer.GetUUID())), Kind: gpu.LinkNVLink}
		l.Lanes = mine.toGPU[address(optional(peer.GetPciInfo()))] + min(mine.toSwitch, r.active(other, peer).toSwitch)
		if l.Lanes == 0 {
			l.Kind = pcie(h, peer)
		}
		links = append(links, l)
	}
	return links, nil
}

// active reads a GPU's NVLinks once: that takes up to a hundred calls.
func (r *reader) active(index int, h nvmllib.Device) lanes {
	found, known := r.lanes[index]
	if !known {
		found = nvlinks(h)
		r.lanes[index] = found
	}
	return found
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
