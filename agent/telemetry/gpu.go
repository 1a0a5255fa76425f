package telemetry

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// series is one name and where its value comes from; nil is "not supported".
type series struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(gpu.Sample) *float64
}

// gpuSeries are all names that have one series a GPU.
type gpuSeries struct {
	own, dcgm []series
	state     *prometheus.Desc
	sampled   *prometheus.Desc
	xids      *prometheus.Desc
	lastXID   *prometheus.Desc // nil without DCGM names
	hostname  string
}

// ownLabels are the contract's. A label without a value is empty, which for
// Prometheus is the same as absent.
func ownLabels() []string {
	return []string{"gpu", "uuid", "pci_bus_id", "model", "tenant", "server", "mig_profile"}
}

func newGPUSeries(o Options) gpuSeries {
	g := gpuSeries{
		own:      ownSeries(),
		state:    prometheus.NewDesc("gpuhost_gpu_state", "Where a GPU stands in the ledger: 1 for its state, 0 for the others.", append(ownLabels(), "state"), nil),
		sampled:  prometheus.NewDesc("gpuhost_gpu_sampled_timestamp_seconds", "When GPUs were last sampled.", nil, nil),
		xids:     prometheus.NewDesc("gpuhost_xid_errors_total", "XID errors the driver reported since the agent runs.", append(ownLabels(), "xid"), nil),
		hostname: o.Hostname,
	}
	if !o.WithoutDCGM {
		labels := dcgmLabels(o.HostnameLabel)
		g.dcgm = dcgmSeries(labels)
		g.lastXID = prometheus.NewDesc("DCGM_FI_DEV_XID_ERRORS", "Value of the last XID error encountered.", labels, nil)
	}
	return g
}

// ownSeries are in base units: bytes, seconds, joules, hertz, ratios of 1.
func ownSeries() []series {
	gauge, counter := prometheus.GaugeValue, prometheus.CounterValue
	own := func(name, help string, kind prometheus.ValueType, value func(gpu.Sample) *float64) series {
		return series{prometheus.NewDesc("gpuhost_gpu_"+name, help, ownLabels(), nil), kind, value}
	}
	return []series{
		own("utilization_ratio", "Share of time a kernel ran.", gauge, times(0.01, func(s gpu.Sample) *float64 { return s.UtilizationPercent })),
		own("memory_utilization_ratio", "Share of time memory was read or written.", gauge, times(0.01, func(s gpu.Sample) *float64 { return s.MemoryUtilPercent })),
		own("encoder_utilization_ratio", "Share of time the encoder was busy.", gauge, times(0.01, func(s gpu.Sample) *float64 { return s.EncoderPercent })),
		own("decoder_utilization_ratio", "Share of time the decoder was busy.", gauge, times(0.01, func(s gpu.Sample) *float64 { return s.DecoderPercent })),
		own("memory_used_bytes", "Memory in use.", gauge, whole(1, func(s gpu.Sample) *uint64 { return s.MemoryUsedBytes })),
		own("memory_free_bytes", "Memory free.", gauge, whole(1, func(s gpu.Sample) *uint64 { return s.MemoryFreeBytes })),
		own("memory_reserved_bytes", "Memory the driver keeps for itself.", gauge, whole(1, func(s gpu.Sample) *uint64 { return s.MemoryReservedBytes })),
		own("temperature_celsius", "Temperature of the GPU.", gauge, func(s gpu.Sample) *float64 { return s.TemperatureCelsius }),
		own("memory_temperature_celsius", "Temperature of the memory.", gauge, func(s gpu.Sample) *float64 { return s.MemoryTempCelsius }),
		own("power_watts", "Power drawn.", gauge, func(s gpu.Sample) *float64 { return s.PowerWatts }),
		own("energy_joules_total", "Energy drawn since the driver was loaded.", counter, func(s gpu.Sample) *float64 { return s.EnergyJoules }),
		own("sm_clock_hertz", "Clock of the multiprocessors.", gauge, func(s gpu.Sample) *float64 { return s.SMClockHertz }),
		own("memory_clock_hertz", "Clock of the memory.", gauge, func(s gpu.Sample) *float64 { return s.MemoryClockHertz }),
		own("pcie_replays_total", "PCIe replays since the driver was loaded.", counter, whole(1, func(s gpu.Sample) *uint64 { return s.PCIeReplays })),
		own("ecc_uncorrected_errors_total", "Memory errors that ECC could not correct, since the driver was loaded.", counter, whole(1, func(s gpu.Sample) *uint64 { return s.ECCErrors })),
		own("processes", "Processes the driver sees on it.", gauge, processes),
	}
}

func processes(s gpu.Sample) *float64 {
	if s.Processes == nil {
		return nil
	}
	n := float64(*s.Processes)
	return &n
}

// times scales a measured value; absent stays absent.
func times(factor float64, value func(gpu.Sample) *float64) func(gpu.Sample) *float64 {
	return func(s gpu.Sample) *float64 {
		v := value(s)
		if v == nil {
			return nil
		}
		scaled := *v * factor
		return &scaled
	}
}

func whole(factor float64, value func(gpu.Sample) *uint64) func(gpu.Sample) *float64 {
	return func(s gpu.Sample) *float64 {
		v := value(s)
		if v == nil {
			return nil
		}
		scaled := float64(*v) * factor
		return &scaled
	}
}

// render makes every series of every GPU in the inventory.
func (g gpuSeries) render(s seen) []prometheus.Metric {
	var out []prometheus.Metric
	if !s.at.IsZero() {
		out = append(out, metric(g.sampled, prometheus.GaugeValue, float64(s.at.UnixMilli())/1000, nil))
	}
	for _, d := range s.inventory.Devices {
		owner := s.owners[d.UUID]
		own, dcgm := ownValues(d, owner), g.dcgmValues(d, owner, s.inventory.DriverVersion)
		out = append(out, g.states(s.ledger[d.UUID], own)...)
		if x, happened := s.xids[d.UUID]; happened {
			out = append(out, g.errors(x, own, dcgm)...)
		}
		if sample, answered := s.samples[d.UUID]; answered {
			out = appendSeries(out, g.own, sample, own)
			out = appendSeries(out, g.dcgm, sample, dcgm)
		}
	}
	return out
}

func appendSeries(out []prometheus.Metric, all []series, sample gpu.Sample, labels []string) []prometheus.Metric {
	for _, s := range all {
		if v := s.value(sample); v != nil {
			out = append(out, metric(s.desc, s.kind, *v, labels))
		}
	}
	return out
}

func (g gpuSeries) states(now drivers.State, labels []string) []prometheus.Metric {
	if now == "" {
		now = drivers.Free
	}
	var out []prometheus.Metric
	for _, state := range drivers.States() {
		value := 0.0
		if state == now {
			value = 1
		}
		out = append(out, metric(g.state, prometheus.GaugeValue, value, with(labels, string(state))))
	}
	return out
}

func (g gpuSeries) errors(x xids, own, dcgm []string) []prometheus.Metric {
	var out []prometheus.Metric
	for code, n := range x.counts {
		out = append(out, metric(g.xids, prometheus.CounterValue, float64(n), with(own, itoa(code))))
	}
	if g.lastXID != nil {
		out = append(out, metric(g.lastXID, prometheus.GaugeValue, float64(x.last), dcgm))
	}
	return out
}

// with is a copy of labels with one more.
func with(labels []string, more string) []string { return append(slices.Clone(labels), more) }

func ownValues(d gpu.Device, o Owner) []string {
	return []string{itoa(d.Index), string(d.UUID), string(d.PCI), valid(d.Model), o.Tenant, o.Server, ""}
}

func (g gpuSeries) dcgmValues(d gpu.Device, o Owner, driver string) []string {
	return []string{
		itoa(d.Index), string(d.UUID), dcgmAddress(d.PCI), "nvidia" + itoa(int(d.Minor)), valid(d.Model),
		g.hostname, valid(driver), o.Server, o.Tenant, o.Server,
	}
}

// dcgmAddress is NVML's own form: a domain of eight digits, upper case.
func dcgmAddress(a gpu.PCIAddress) string { return "0000" + strings.ToUpper(string(a)) }
