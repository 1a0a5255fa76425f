package telemetry

import (
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/gpuhost/gpuhost/agent/spec"
)

// snapshot is finished metric families, replaced as a whole. Making them when
// values are collected, and not when they are scraped, leaves a scrape nothing to
// do but write them down.
type snapshot struct {
	families atomic.Pointer[[]*dto.MetricFamily]
}

// set makes families of metrics. One that is not sound is left out, not the
// others.
func (s *snapshot) set(metrics []prometheus.Metric) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(fixed(metrics)) // describes nothing, so nothing can clash
	families, _ := registry.Gather()
	s.families.Store(&families)
}

func (s *snapshot) load() []*dto.MetricFamily {
	if families := s.families.Load(); families != nil {
		return *families
	}
	return nil
}

// fixed is a collector of what there is.
type fixed []prometheus.Metric

// Describe implements prometheus.Collector.
func (f fixed) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (f fixed) Collect(out chan<- prometheus.Metric) {
	for _, m := range f {
		out <- m
	}
}

// gatherer joins what is counted live with the snapshots. Their names differ.
type gatherer struct {
	live      *prometheus.Registry
	snapshots []*snapshot
}

// Gather implements prometheus.Gatherer.
func (g gatherer) Gather() ([]*dto.MetricFamily, error) {
	all, err := g.live.Gather()
	for _, s := range g.snapshots {
		all = append(all, s.load()...)
	}
	slices.SortFunc(all, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
	return all, err
}

// metric makes one series. Label values that come from a device are made valid
// before: an odd byte must not cost the series.
func metric(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels []string) prometheus.Metric {
	m, err := prometheus.NewConstMetric(d, kind, value, labels...)
	if err != nil {
		return prometheus.NewInvalidMetric(d, err)
	}
	return m
}

func valid(label string) string { return strings.ToValidUTF8(label, "\uFFFD") }

func itoa(n int) string { return strconv.Itoa(n) }

// serverDescs are the series about servers.
type serverDescs struct{ servers, problems, bytes, packets *prometheus.Desc }

func newServerDescs() serverDescs {
	labels := []string{"tenant", "server", "class", "direction"}
	return serverDescs{
		servers:  prometheus.NewDesc("gpuhost_servers", "Servers (instances) by phase.", []string{"phase"}, nil),
		problems: prometheus.NewDesc("gpuhost_problem", "What the agent fails at now, as gpuhost status names it; always 1.", []string{"problem"}, nil),
		bytes:    prometheus.NewDesc("gpuhost_network_bytes_total", "Bytes to and from servers, intranet and internet apart.", labels, nil),
		packets:  prometheus.NewDesc("gpuhost_network_packets_total", "Packets to and from servers, intranet and internet apart.", labels, nil),
	}
}

func (d serverDescs) renderServers(phases map[spec.Phase]int) []prometheus.Metric {
	var out []prometheus.Metric
	for phase, n := range phases {
		out = append(out, metric(d.servers, prometheus.GaugeValue, float64(n), []string{string(phase)}))
	}
	return out
}

func (d serverDescs) renderProblems(names []string) []prometheus.Metric {
	out := make([]prometheus.Metric, len(names))
	for i, name := range names {
		out[i] = metric(d.problems, prometheus.GaugeValue, 1, []string{valid(name)})
	}
	return out
}

func (d serverDescs) renderTraffic(all []Traffic) []prometheus.Metric {
	out := make([]prometheus.Metric, 0, 2*len(all))
	for _, t := range all {
		labels := []string{t.Tenant, t.Server, t.Class, t.Direction}
		out = append(out,
			metric(d.bytes, prometheus.CounterValue, float64(t.Bytes), labels),
			metric(d.packets, prometheus.CounterValue, float64(t.Packets), labels))
	}
	return out
}
