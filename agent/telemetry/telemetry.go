package telemetry

import (
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// BuildInfo is what runs.
type BuildInfo struct {
	Version   string
	Commit    string
	GoVersion string
}

// Options are the operator's choices. The zero value is a good one.
type Options struct {
	WithoutDCGM   bool   // leave out the names of the DCGM exporter
	Hostname      string // their label hostname
	HostnameLabel string // how that label is spelled; "hostname" when empty, "Hostname" before May 2026
	Now           func() time.Time
}

// Owner is who has a GPU.
type Owner struct {
	Tenant string
	Server string // the instance's name
}

// Traffic is what one server sent or received so far.
type Traffic struct {
	Tenant    string
	Server    string
	Class     string // intranet, internet
	Direction string // ingress, egress
	Bytes     uint64
	Packets   uint64
}

// Telemetry is a registry fed with snapshots. It is safe for concurrent use.
type Telemetry struct {
	options  Options
	gatherer gatherer
	gpus     gpuSeries
	descs    serverDescs
	gpuView  snapshot
	servers  snapshot
	problems snapshot
	traffic  snapshot

	steps         *prometheus.HistogramVec
	aclUpdates    prometheus.Histogram
	auditFailures *prometheus.CounterVec

	mu   sync.Mutex // guards seen
	seen seen
}

// seen is the last of each snapshot that GPU series are made from.
type seen struct {
	inventory gpu.Inventory
	samples   map[gpu.UUID]gpu.Sample
	owners    map[gpu.UUID]Owner
	ledger    map[gpu.UUID]drivers.State
	xids      map[gpu.UUID]xids
	at        time.Time
}

// xids are the XID errors of one GPU since the agent runs.
type xids struct {
	last   int
	counts map[int]uint64 // by code
}

// New makes a registry of its own; nothing global is touched.
func New(build BuildInfo, o Options) *Telemetry {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.HostnameLabel == "" {
		o.HostnameLabel = "hostname"
	}
	t := &Telemetry{options: o, gpus: newGPUSeries(o), descs: newServerDescs()}
	t.seen.xids = map[gpu.UUID]xids{}
	t.makeVectors()
	live := prometheus.NewRegistry()
	live.MustRegister(t.steps, t.aclUpdates, t.auditFailures, buildInfo(build), collectors.NewGoCollector())
	t.gatherer = gatherer{live: live, snapshots: []*snapshot{&t.gpuView, &t.servers, &t.problems, &t.traffic}}
	return t
}

func (t *Telemetry) makeVectors() {
	t.steps = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "gpuhost_step_duration_seconds", Help: "Duration of applied steps.",
		Buckets: prometheus.ExponentialBuckets(0.001, 4, 9), // 1 ms to 65 s
	}, []string{"room", "verb", "result"})
	t.aclUpdates = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "gpuhost_acl_update_duration_seconds", Help: "Time from when a network is looked at to its changed rules in force.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 2, 15), // 100 µs to 1.6 s
	})
	t.auditFailures = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gpuhost_audit_failures_total", Help: "Isolation controls found missing in the kernel.",
	}, []string{"control"})
}

func buildInfo(b BuildInfo) prometheus.Collector {
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "gpuhost_build_info", Help: "What runs; always 1.",
		ConstLabels: prometheus.Labels{"version": b.Version, "commit": b.Commit, "goversion": b.GoVersion},
	})
	info.Set(1)
	return info
}

// Handler serves all series, as text or OpenMetrics. Few scrapes at a time
// are let in, so that nobody can make the agent busy with them.
func (t *Telemetry) Handler() http.Handler {
	const atATime = 4
	return promhttp.HandlerFor(t.gatherer, promhttp.HandlerOpts{
		EnableOpenMetrics: true, MaxRequestsInFlight: atATime, ErrorHandling: promhttp.ContinueOnError,
	})
}

// Gatherer gives all series to whoever sends it upstream.
func (t *Telemetry) Gatherer() prometheus.Gatherer { return t.gatherer }

// SetGPUs replaces what is known of GPUs: the inventory, the last sample of each
// that answered, and who has which.
func (t *Telemetry) SetGPUs(inventory gpu.Inventory, samples []gpu.Sample, owners map[gpu.UUID]Owner) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen.inventory, t.seen.owners, t.seen.at = inventory, owners, t.options.Now()
	t.seen.samples = make(map[gpu.UUID]gpu.Sample, len(samples))
	for _, s := range samples {
		t.seen.samples[s.UUID] = s
	}
	t.forgetGone()
	t.gpuView.set(t.gpus.render(t.seen))
}

// SetLedger replaces the states of GPUs. One without a state counts as Free.
func (t *Telemetry) SetLedger(states map[gpu.UUID]drivers.State) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen.ledger = states
	t.gpuView.set(t.gpus.render(t.seen))
}

// ObserveXID counts an XID error of the driver.
func (t *Telemetry) ObserveXID(id gpu.UUID, code int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	x, before := t.seen.xids[id]
	if !before {
		x.counts = map[int]uint64{}
	}
	x.last = code
	x.counts[code]++
	t.seen.xids[id] = x
	t.gpuView.set(t.gpus.render(t.seen))
}

// forgetGone drops what was counted for GPUs that are no longer in the machine.
func (t *Telemetry) forgetGone() {
	maps.DeleteFunc(t.seen.xids, func(id gpu.UUID, _ xids) bool {
		return !slices.ContainsFunc(t.seen.inventory.Devices, func(d gpu.Device) bool { return d.UUID == id })
	})
}

// SetServers replaces the number of servers (instances) by phase.
func (t *Telemetry) SetServers(phases map[spec.Phase]int) {
	t.servers.set(t.descs.renderServers(phases))
}

// SetProblems replaces what the agent fails at, by name.
func (t *Telemetry) SetProblems(names []string) { t.problems.set(t.descs.renderProblems(names)) }

// SetTraffic replaces the traffic counters of all servers. A server that is
// gone is left out by the caller, and its series end.
func (t *Telemetry) SetTraffic(all []Traffic) { t.traffic.set(t.descs.renderTraffic(all)) }

// ObserveStep counts an applied step.
func (t *Telemetry) ObserveStep(room, verb string, seconds float64, ok bool) {
	result := "ok"
	if !ok {
		result = "failed"
	}
	t.steps.WithLabelValues(room, verb, result).Observe(seconds)
}

// AuditFailure counts a control that was found missing.
func (t *Telemetry) AuditFailure(control string) { t.auditFailures.WithLabelValues(control).Inc() }

// ACLUpdate counts the time a changed rule took to be enforced.
func (t *Telemetry) ACLUpdate(seconds float64) { t.aclUpdates.Observe(seconds) }
