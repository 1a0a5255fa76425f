package telemetry

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// dcgmLabels are the DCGM exporter's, in its spelling: container and pod are the
// server, namespace is the tenant.
func dcgmLabels(hostname string) []string {
	return []string{
		"gpu", "UUID", "pci_bus_id", "device", "modelName", hostname, "DCGM_FI_DRIVER_VERSION", "container", "namespace", "pod",
	}
}

const mebi = 1.0 / (1 << 20)

// dcgmSeries are the exporter's default names as far as samples have their
// values, in its units (MHz, MiB, mJ, %), which are not Prometheus' base units.
func dcgmSeries(labels []string) []series {
	gauge, counter := prometheus.GaugeValue, prometheus.CounterValue
	dcgm := func(name, help string, kind prometheus.ValueType, value func(gpu.Sample) *float64) series {
		return series{prometheus.NewDesc("DCGM_FI_DEV_"+name, help, labels, nil), kind, value}
	}
	return []series{
		dcgm("SM_CLOCK", "SM clock frequency (in MHz).", gauge, times(1e-6, func(s gpu.Sample) *float64 { return s.SMClockHertz })),
		dcgm("MEM_CLOCK", "Memory clock frequency (in MHz).", gauge, times(1e-6, func(s gpu.Sample) *float64 { return s.MemoryClockHertz })),
		dcgm("MEMORY_TEMP", "Memory temperature (in C).", gauge, func(s gpu.Sample) *float64 { return s.MemoryTempCelsius }),
		dcgm("GPU_TEMP", "GPU temperature (in C).", gauge, func(s gpu.Sample) *float64 { return s.TemperatureCelsius }),
		dcgm("POWER_USAGE", "Power draw (in W).", gauge, func(s gpu.Sample) *float64 { return s.PowerWatts }),
		dcgm("TOTAL_ENERGY_CONSUMPTION", "Total energy consumption since boot (in mJ).", counter, times(1000, func(s gpu.Sample) *float64 { return s.EnergyJoules })),
		dcgm("PCIE_REPLAY_COUNTER", "Total number of PCIe retries.", counter, whole(1, func(s gpu.Sample) *uint64 { return s.PCIeReplays })),
		dcgm("GPU_UTIL", "GPU utilization (in %).", gauge, func(s gpu.Sample) *float64 { return s.UtilizationPercent }),
		dcgm("MEM_COPY_UTIL", "Memory utilization (in %).", gauge, func(s gpu.Sample) *float64 { return s.MemoryUtilPercent }),
		dcgm("ENC_UTIL", "Encoder utilization (in %).", gauge, func(s gpu.Sample) *float64 { return s.EncoderPercent }),
		dcgm("DEC_UTIL", "Decoder utilization (in %).", gauge, func(s gpu.Sample) *float64 { return s.DecoderPercent }),
		dcgm("FB_FREE", "Framebuffer memory free (in MiB).", gauge, whole(mebi, func(s gpu.Sample) *uint64 { return s.MemoryFreeBytes })),
		dcgm("FB_USED", "Framebuffer memory used (in MiB).", gauge, whole(mebi, func(s gpu.Sample) *uint64 { return s.MemoryUsedBytes })),
		dcgm("FB_RESERVED", "Framebuffer memory reserved (in MiB).", gauge, whole(mebi, func(s gpu.Sample) *uint64 { return s.MemoryReservedBytes })),
		dcgm("VGPU_LICENSE_STATUS", "vGPU License status.", gauge, func(gpu.Sample) *float64 { return new(float64) }),
	}
}
