//go:build cgo

package main

import (
	"encoding/binary"
	"fmt"
	"time"

	nvmllib "github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/gpus"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"

	"github.com/gpuhost/gpuhost/agent/sim"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// pretend is a mock server dressed with a scenario. The mock alone gives random
// UUIDs in every process, no PCI addresses, and panics where it has no answer.
type pretend struct {
	scenario sim.Scenario
	devices  []gpu.Device
	faults   string // path
	byHandle map[nvmllib.Device]int
}

func simulate(s sim.Scenario, seed, faults string) (nvmllib.Interface, error) {
	cfg := config(s)
	host, err := server.New(
		server.WithGPUs(gpus.Multiple(len(s.Slots), cfg)...),
		server.WithDriverVersion(s.DriverVersion),
		server.WithNVMLVersion("13."+s.DriverVersion),
		server.WithCUDADriverVersion(cudaNumber(s.CUDAVersion)),
	)
	if err != nil {
		return nil, fmt.Errorf("simulate %s: %w", s.Name, err)
	}
	p := &pretend{scenario: s, devices: s.Inventory(seed).Devices, faults: faults, byHandle: map[nvmllib.Device]int{}}
	for i, h := range host.Devices {
		p.byHandle[h] = i
		p.dress(h.(*server.Device), i)
	}
	return host, nil
}

// config takes MIG profiles and codes from the mock's own catalogue.
func config(s sim.Scenario) gpus.Config {
	cfg := gpus.A100_SXM4_40GB
	switch s.Name {
	case "dgx-h100":
		cfg = gpus.H100_SXM5_80GB
	case "dgx-h200":
		cfg = gpus.H200_SXM5_141GB
	case "dgx-b200":
		cfg = gpus.B200_SXM5_180GB
	}
	cfg.Name, cfg.MemoryMB = s.Model, s.MemoryBytes>>20
	cfg.CudaMajor, cfg.CudaMinor = s.ComputeMajor, s.ComputeMinor
	return cfg
}

func cudaNumber(version string) int {
	var major, minor int
	fmt.Sscanf(version, "%d.%d", &major, &minor)
	return major*1000 + minor*10
}

func (p *pretend) dress(h *server.Device, i int) {
	d := p.devices[i]
	h.UUID, h.PciBusID, h.Minor = string(d.UUID), string(d.PCI), int(d.Minor)
	p.dressIdentity(h, i)
	p.dressTopology(h, i)
	p.dressMeasurement(h, i)
}

func (p *pretend) dressIdentity(h *server.Device, i int) {
	d := p.devices[i]
	h.GetUUIDFunc = func() (string, nvmllib.Return) {
		f := p.broken(i)
		if f.Gone(i) {
			return "", nvmllib.ERROR_GPU_IS_LOST
		}
		return string(d.UUID), nvmllib.SUCCESS
	}
	h.GetPciInfoFunc = func() (nvmllib.PciInfo, nvmllib.Return) {
		return pciInfo(d.PCI), nvmllib.SUCCESS
	}
	h.GetSerialFunc = func() (string, nvmllib.Return) { return d.Serial, nvmllib.SUCCESS }
	h.GetVbiosVersionFunc = func() (string, nvmllib.Return) {
		if other, set := p.broken(i).VBIOS[i]; set {
			return other, nvmllib.SUCCESS
		}
		return d.VBIOS, nvmllib.SUCCESS
	}
	h.GetNumGpuCoresFunc = func() (int, nvmllib.Return) { return d.Cores, nvmllib.SUCCESS }
	h.GetMemoryAffinityFunc = func(int, nvmllib.AffinityScope) ([]uint, nvmllib.Return) {
		return []uint{1 << d.NUMANode}, nvmllib.SUCCESS
	}
}

// broken reads what is broken now. A GPU that hangs blocks here for ever, as
// the driver would.
func (p *pretend) broken(i int) sim.Faults {
	f, err := sim.ReadFaults(p.faults)
	if err != nil {
		return sim.Faults{}
	}
	if f.Hangs(i) {
		select {}
	}
	return f
}

func pciInfo(a gpu.PCIAddress) nvmllib.PciInfo {
	var info nvmllib.PciInfo
	fmt.Sscanf(string(a), "%04x:%02x:%02x", &info.Domain, &info.Bus, &info.Device)
	for i, c := range []byte(a) {
		info.BusId[i] = int8(c)
	}
	return info
}

func (p *pretend) dressTopology(h *server.Device, i int) {
	fabric := p.scenario.Fabric
	peer := i ^ 1 // the other end of a bridge
	h.GetNvLinkStateFunc = func(link int) (nvmllib.EnableState, nvmllib.Return) {
		if link >= fabric.Lanes {
			return nvmllib.FEATURE_DISABLED, nvmllib.ERROR_INVALID_ARGUMENT
		}
		return nvmllib.FEATURE_ENABLED, nvmllib.SUCCESS
	}
	h.GetNvLinkRemoteDeviceTypeFunc = func(int) (nvmllib.IntNvLinkDeviceType, nvmllib.Return) {
		if fabric.Switch {
			return nvmllib.NVLINK_DEVICE_TYPE_SWITCH, nvmllib.SUCCESS
		}
		return nvmllib.NVLINK_DEVICE_TYPE_GPU, nvmllib.SUCCESS
	}
	h.GetNvLinkRemotePciInfoFunc = func(int) (nvmllib.PciInfo, nvmllib.Return) {
		return pciInfo(p.devices[peer].PCI), nvmllib.SUCCESS
	}
	h.GetTopologyCommonAncestorFunc = func(other nvmllib.Device) (nvmllib.GpuTopologyLevel, nvmllib.Return) {
		if p.devices[p.byHandle[other]].NUMANode == p.devices[i].NUMANode {
			return nvmllib.TOPOLOGY_NODE, nvmllib.SUCCESS
		}
		return nvmllib.TOPOLOGY_SYSTEM, nvmllib.SUCCESS
	}
}

func (p *pretend) dressMeasurement(h *server.Device, i int) {
	read := func() sim.Reading { return p.scenario.Read(i, time.Now(), p.broken(i)) }
	s := p.scenario
	h.GetMemoryInfo_v2Func = func() (nvmllib.Memory_v2, nvmllib.Return) {
		used := read().MemoryUsedBytes
		return nvmllib.Memory_v2{
			Total: s.MemoryBytes, Reserved: s.ReservedBytes, Used: used, Free: s.MemoryBytes - s.ReservedBytes - used,
		}, nvmllib.SUCCESS
	}
	h.GetUtilizationRatesFunc = func() (nvmllib.Utilization, nvmllib.Return) {
		r := read()
		return nvmllib.Utilization{Gpu: r.UtilizationPercent, Memory: r.MemoryPercent}, nvmllib.SUCCESS
	}
	h.GetEncoderUtilizationFunc = func() (uint32, uint32, nvmllib.Return) { return 0, 0, nvmllib.SUCCESS }
	h.GetDecoderUtilizationFunc = func() (uint32, uint32, nvmllib.Return) { return 0, 0, nvmllib.SUCCESS }
	h.GetPowerUsageFunc = func() (uint32, nvmllib.Return) { return read().Milliwatts, nvmllib.SUCCESS }
	h.GetTotalEnergyConsumptionFunc = func() (uint64, nvmllib.Return) { return read().Millijoules, nvmllib.SUCCESS }
	h.GetTemperatureFunc = func(nvmllib.TemperatureSensors) (uint32, nvmllib.Return) { return read().Celsius, nvmllib.SUCCESS }
	h.GetPcieReplayCounterFunc = func() (int, nvmllib.Return) { return read().PCIeReplays, nvmllib.SUCCESS }
	h.GetTotalEccErrorsFunc = func(nvmllib.MemoryErrorType, nvmllib.EccCounterType) (uint64, nvmllib.Return) {
		return read().ECCErrors, nvmllib.SUCCESS
	}
	h.GetClockInfoFunc = func(kind nvmllib.ClockType) (uint32, nvmllib.Return) {
		if kind == nvmllib.CLOCK_MEM {
			return read().MemClockMHz, nvmllib.SUCCESS
		}
		return read().SMClockMHz, nvmllib.SUCCESS
	}
	h.GetFieldValuesFunc = func(values []nvmllib.FieldValue) nvmllib.Return { return p.fields(values, read()) }
	p.dressProcesses(h, read)
}

func (p *pretend) fields(values []nvmllib.FieldValue, r sim.Reading) nvmllib.Return {
	for i := range values {
		values[i].NvmlReturn = uint32(nvmllib.ERROR_NOT_SUPPORTED)
		if values[i].FieldId == nvmllib.FI_DEV_MEMORY_TEMP && p.scenario.HasMemoryTemp {
			values[i].NvmlReturn = uint32(nvmllib.SUCCESS)
			binary.NativeEndian.PutUint32(values[i].Value[:], r.MemoryCelsius)
		}
	}
	return nvmllib.SUCCESS
}

func (p *pretend) dressProcesses(h *server.Device, read func() sim.Reading) {
	none := func() ([]nvmllib.ProcessInfo, nvmllib.Return) { return nil, nvmllib.SUCCESS }
	h.GetGraphicsRunningProcessesFunc = none
	h.GetMPSComputeRunningProcessesFunc = none
	h.GetComputeRunningProcessesFunc = func() ([]nvmllib.ProcessInfo, nvmllib.Return) {
		list := make([]nvmllib.ProcessInfo, read().Processes)
		for i := range list {
			list[i].Pid = uint32(i + 1)
		}
		return list, nvmllib.SUCCESS
	}
}
