//go:build cgo

package main

import (
	"fmt"
	"math/bits"

	nvmllib "github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/drivers/gpu"
	"github.com/gpuhost/gpuhost/drivers/nvml"
)

// reader asks one NVML. It keeps handles: looking them up costs seconds on a
// host without persistence. It touches no GPU but the one it is asked about.
type reader struct {
	lib     nvmllib.Interface
	handles map[int]nvmllib.Device
	lanes   map[int]lanes
}

func newReader(lib nvmllib.Interface) *reader {
	return &reader{lib: lib, handles: map[int]nvmllib.Device{}, lanes: map[int]lanes{}}
}

func (r *reader) host() (*nvml.Host, error) {
	gpus, ret := r.lib.DeviceGetCount()
	if ret != nvmllib.SUCCESS {
		return nil, failure("count GPUs", ret)
	}
	return &nvml.Host{DriverVersion: optional(r.lib.SystemGetDriverVersion()), CUDAVersion: cudaVersion(r.lib), GPUs: gpus}, nil
}

func (r *reader) device(index int) (*gpu.Device, error) {
	h, err := r.handle(index)
	if err != nil {
		return nil, err
	}
	return identify(h, index)
}

func (r *reader) handle(index int) (nvmllib.Device, error) {
	if h, there := r.handles[index]; there {
		return h, nil
	}
	h, ret := r.lib.DeviceGetHandleByIndex(index)
	if ret != nvmllib.SUCCESS {
		return nil, failure(fmt.Sprintf("find GPU %d", index), ret)
	}
	r.handles[index] = h
	return h, nil
}

// identify reads what a device is. Without any of the first five facts it is of
// no use; the others are absent on some GPUs.
func identify(h nvmllib.Device, index int) (*gpu.Device, error) {
	uuid, ret := h.GetUUID()
	if ret != nvmllib.SUCCESS {
		return nil, failure("read UUID", ret)
	}
	minor, ret := h.GetMinorNumber()
	if ret != nvmllib.SUCCESS {
		return nil, failure("read minor number", ret)
	}
	pci, ret := h.GetPciInfo()
	if ret != nvmllib.SUCCESS {
		return nil, failure("read PCI address", ret)
	}
	model, ret := h.GetName()
	if ret != nvmllib.SUCCESS {
		return nil, failure("read name", ret)
	}
	memory, ret := h.GetMemoryInfo()
	if ret != nvmllib.SUCCESS {
		return nil, failure("read memory", ret)
	}
	mig, err := migEnabled(h)
	if err != nil {
		return nil, err
	}
	cores := optional(h.GetNumGpuCores())
	return &gpu.Device{
		UUID: gpu.UUID(uuid), Index: index, Minor: uint32(minor), PCI: address(pci), Model: model,
		Architecture: architecture(optional(h.GetArchitecture())), Serial: optional(h.GetSerial()),
		VBIOS: optional(h.GetVbiosVersion()), MemoryBytes: memory.Total, Cores: cores,
		SMs: multiprocessors(h, cores), NUMANode: numaNode(h),
		MIGEnabled: mig,
	}, nil
}

// migEnabled: a GPU of which it cannot be known must not be taken for a whole one.
func migEnabled(h nvmllib.Device) (bool, error) {
	current, _, ret := h.GetMigMode()
	switch ret {
	case nvmllib.SUCCESS:
		return current == nvmllib.DEVICE_MIG_ENABLE, nil
	case nvmllib.ERROR_NOT_SUPPORTED:
		return false, nil
	default:
		return false, failure("read MIG mode", ret)
	}
}

// optional is a fact, or its zero where the device does not know it.
func optional[T any](value T, ret nvmllib.Return) T {
	if ret != nvmllib.SUCCESS {
		var zero T
		return zero
	}
	return value
}

func failure(what string, ret nvmllib.Return) error {
	kind := fault.Temporary
	if ret == nvmllib.ERROR_NOT_FOUND {
		kind = fault.NotFound
	}
	return fault.New(kind, what, "%s", ret.Error())
}

func cudaVersion(lib nvmllib.Interface) string {
	v, ret := lib.SystemGetCudaDriverVersion()
	if ret != nvmllib.SUCCESS {
		return ""
	}
	return fmt.Sprintf("%d.%d", v/1000, v%1000/10)
}

func address(p nvmllib.PciInfo) gpu.PCIAddress {
	return gpu.PCIAddress(fmt.Sprintf("%04x:%02x:%02x.0", p.Domain, p.Bus, p.Device))
}

func architecture(a nvmllib.DeviceArchitecture) string {
	switch a {
	case nvmllib.DEVICE_ARCH_VOLTA:
		return "Volta"
	case nvmllib.DEVICE_ARCH_TURING:
		return "Turing"
	case nvmllib.DEVICE_ARCH_AMPERE:
		return "Ampere"
	case nvmllib.DEVICE_ARCH_ADA:
		return "Ada"
	case nvmllib.DEVICE_ARCH_HOPPER:
		return "Hopper"
	case nvmllib.DEVICE_ARCH_BLACKWELL:
		return "Blackwell"
	default:
		return ""
	}
}

// multiprocessors derives SMs from cores: NVML tells their number for MIG
// devices only. Cores per SM are from the CUDA programming guide.
func multiprocessors(h nvmllib.Device, cores int) int {
	major, minor, ret := h.GetCudaComputeCapability()
	if ret != nvmllib.SUCCESS {
		return 0
	}
	if major == 7 || major == 8 && minor == 0 {
		return cores / 64
	}
	return cores / 128
}

// numaNode is the host memory nearest to the GPU. (GetNumaNodeId is another
// thing: the node of the GPU's own memory on coherent platforms.)
func numaNode(h nvmllib.Device) int {
	const nodes = 64
	sets, ret := h.GetMemoryAffinity(nodes, nvmllib.AFFINITY_SCOPE_NODE)
	if ret != nvmllib.SUCCESS || len(sets) == 0 || sets[0] == 0 {
		return 0
	}
	return bits.TrailingZeros(sets[0])
}
