//go:build cgo

package main

import (
	"encoding/binary"
	"slices"

	nvmllib "github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// sample measures one GPU. What it does not support stays nil.
func (r *reader) sample(index int) (*gpu.Sample, error) {
	h, err := r.handle(index)
	if err != nil {
		return nil, err
	}
	id, ret := h.GetUUID()
	if ret != nvmllib.SUCCESS {
		return nil, failure("read UUID", ret)
	}
	s := &gpu.Sample{UUID: gpu.UUID(id)}
	readMemory(h, s)
	readUtilization(h, s)
	readPower(h, s)
	s.SMClockHertz = scaled(1e6)(h.GetClockInfo(nvmllib.CLOCK_SM))
	s.MemoryClockHertz = scaled(1e6)(h.GetClockInfo(nvmllib.CLOCK_MEM))
	s.TemperatureCelsius = scaled(1)(h.GetTemperature(nvmllib.TEMPERATURE_GPU))
	s.MemoryTempCelsius = memoryTemperature(h)
	if replays, ret := h.GetPcieReplayCounter(); ret == nvmllib.SUCCESS {
		n := uint64(replays)
		s.PCIeReplays = &n
	}
	if errors, ret := h.GetTotalEccErrors(nvmllib.MEMORY_ERROR_TYPE_UNCORRECTED, nvmllib.VOLATILE_ECC); ret == nvmllib.SUCCESS {
		s.ECCErrors = &errors
	}
	s.Processes = processes(h)
	return s, nil
}

// scaled makes a measured integer a float in base units.
func scaled(factor float64) func(uint32, nvmllib.Return) *float64 {
	return func(value uint32, ret nvmllib.Return) *float64 {
		if ret != nvmllib.SUCCESS {
			return nil
		}
		f := float64(value) * factor
		return &f
	}
}

func readMemory(h nvmllib.Device, s *gpu.Sample) {
	m, ret := h.GetMemoryInfo_v2()
	if ret != nvmllib.SUCCESS {
		return
	}
	s.MemoryUsedBytes, s.MemoryFreeBytes, s.MemoryReservedBytes = &m.Used, &m.Free, &m.Reserved
}

func readUtilization(h nvmllib.Device, s *gpu.Sample) {
	rates, ret := h.GetUtilizationRates()
	s.UtilizationPercent = scaled(1)(rates.Gpu, ret)
	s.MemoryUtilPercent = scaled(1)(rates.Memory, ret)
	encoder, _, ret := h.GetEncoderUtilization()
	s.EncoderPercent = scaled(1)(encoder, ret)
	decoder, _, ret := h.GetDecoderUtilization()
	s.DecoderPercent = scaled(1)(decoder, ret)
}

func readPower(h nvmllib.Device, s *gpu.Sample) {
	s.PowerWatts = scaled(1e-3)(h.GetPowerUsage())
	if millijoules, ret := h.GetTotalEnergyConsumption(); ret == nvmllib.SUCCESS {
		joules := float64(millijoules) / 1000
		s.EnergyJoules = &joules
	}
}

func memoryTemperature(h nvmllib.Device) *float64 {
	values := []nvmllib.FieldValue{{FieldId: nvmllib.FI_DEV_MEMORY_TEMP}}
	if h.GetFieldValues(values) != nvmllib.SUCCESS || nvmllib.Return(values[0].NvmlReturn) != nvmllib.SUCCESS {
		return nil
	}
	return scaled(1)(binary.NativeEndian.Uint32(values[0].Value[:4]), nvmllib.SUCCESS)
}

// processes counts each process once, whatever it does on the GPU. Nil is that one
// kind cannot be listed: there might be one. A GPU that has no graphics or no MPS has
// no such processes.
func processes(h nvmllib.Device) *int {
	compute, ret := h.GetComputeRunningProcesses()
	if ret != nvmllib.SUCCESS {
		return nil
	}
	graphics, ret := h.GetGraphicsRunningProcesses()
	if ret != nvmllib.SUCCESS && ret != nvmllib.ERROR_NOT_SUPPORTED {
		return nil
	}
	mps, ret := h.GetMPSComputeRunningProcesses()
	if ret != nvmllib.SUCCESS && ret != nvmllib.ERROR_NOT_SUPPORTED {
		return nil
	}
	seen := map[uint32]bool{}
	for _, p := range slices.Concat(compute, graphics, mps) {
		seen[p.Pid] = true
	}
	n := len(seen)
	return &n
}
