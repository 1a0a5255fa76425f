package telemetry_test

import (
	"bytes"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/sim"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/agent/telemetry"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

var update = flag.Bool("update", false, "write the golden scrape anew")

func noon() time.Time { return time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC) }

func newTelemetry(o telemetry.Options) *telemetry.Telemetry {
	o.Now, o.Hostname = noon, "host-1"
	return telemetry.New(telemetry.BuildInfo{Version: "0.1.0", Commit: "abc", GoVersion: "go1.26"}, o)
}

func host(t testing.TB) (gpu.Inventory, []gpu.Sample) {
	t.Helper()
	s, err := sim.Find("dgx-h100")
	if err != nil {
		t.Fatal(err)
	}
	inv := s.Inventory("test")
	var samples []gpu.Sample
	for _, d := range inv.Devices {
		samples = append(samples, sample(d.UUID))
	}
	return inv, samples
}

func of[T any](v T) *T { return &v }

func sample(id gpu.UUID) gpu.Sample {
	return gpu.Sample{
		UUID: id, UtilizationPercent: of(50.0), MemoryUtilPercent: of(25.0), EncoderPercent: of(0.0), DecoderPercent: of(0.0),
		MemoryUsedBytes: of[uint64](8 << 30), MemoryFreeBytes: of[uint64](71 << 30), MemoryReservedBytes: of[uint64](1 << 30),
		TemperatureCelsius: of(41.0), MemoryTempCelsius: of(52.0), PowerWatts: of(301.5), EnergyJoules: of(12.5),
		SMClockHertz: of(1.98e9), MemoryClockHertz: of(2.619e9), PCIeReplays: of[uint64](3), ECCErrors: of[uint64](1), Processes: of(2),
	}
}

// scrape gives the series whose name begins with one of the prefixes, sorted as
// the registry sorts them.
func scrape(t testing.TB, h http.Handler, prefixes ...string) string {
	t.Helper()
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if answer.Code != http.StatusOK {
		t.Fatalf("have status %d: %s", answer.Code, answer.Body)
	}
	var out strings.Builder
	for line := range strings.Lines(answer.Body.String()) {
		name := strings.TrimPrefix(strings.TrimPrefix(line, "# TYPE "), "# HELP ")
		if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) }) {
			out.WriteString(line)
		}
	}
	return out.String()
}

func TestScrape(t *testing.T) {
	m := newTelemetry(telemetry.Options{})
	inv, samples := host(t)
	inv.Devices = inv.Devices[:2]
	samples = samples[:1] // the other does not answer
	m.SetGPUs(inv, samples, map[gpu.UUID]telemetry.Owner{inv.Devices[0].UUID: {Tenant: "acme", Server: "train-1"}})
	m.SetLedger(map[gpu.UUID]drivers.State{inv.Devices[0].UUID: drivers.Assigned})
	m.ObserveXID(inv.Devices[0].UUID, 13)
	m.ObserveXID(inv.Devices[0].UUID, 13)
	m.ObserveXID(inv.Devices[0].UUID, 79)
	m.SetServers(map[spec.Phase]int{spec.PhaseRunning: 3, spec.PhaseFailed: 1})
	m.ObserveStep("isolation", "create", 0.12, true)
	m.ObserveStep("isolation", "create", 0.12, false)
	m.AuditFailure("D2")
	m.ACLUpdate(0.0008)
	m.SetTraffic([]telemetry.Traffic{{Tenant: "acme", Server: "train-1", Class: "intranet", Direction: "egress", Bytes: 1500, Packets: 1}})

	have := scrape(t, m.Handler(), "gpuhost_", "DCGM_")
	const path = "testdata/scrape.txt"
	if *update {
		if err := os.WriteFile(path, []byte(have), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), have); diff != "" {
		t.Errorf("(-want +have):\n%s", diff)
	}
}

func TestWhatADeviceDoesNotSupportIsAbsent(t *testing.T) {
	m := newTelemetry(telemetry.Options{})
	inv, _ := host(t)
	inv.Devices = inv.Devices[:1]
	m.SetGPUs(inv, []gpu.Sample{{UUID: inv.Devices[0].UUID}}, nil)
	have := scrape(t, m.Handler(), "gpuhost_gpu_t", "gpuhost_gpu_m", "gpuhost_gpu_p", "gpuhost_gpu_e", "gpuhost_gpu_u", "DCGM_")
	if !strings.HasPrefix(have, "# HELP DCGM_FI_DEV_VGPU_LICENSE_STATUS") || strings.Count(have, "# TYPE") != 1 {
		t.Errorf("have\n%s", have)
	}
}

func TestSeriesOfWhatIsGoneDisappear(t *testing.T) {
	m := newTelemetry(telemetry.Options{})
	inv, samples := host(t)
	gone := inv.Devices[7].UUID
	m.SetGPUs(inv, samples, nil)
	m.ObserveXID(gone, 79)
	m.SetTraffic([]telemetry.Traffic{{Tenant: "acme", Server: "gone"}})
	m.SetServers(map[spec.Phase]int{spec.PhasePulling: 1})
	if have := scrape(t, m.Handler(), "gpuhost_", "DCGM_"); !strings.Contains(have, string(gone)) {
		t.Fatal("it was never there")
	}
	inv.Devices = inv.Devices[:7]
	m.SetGPUs(inv, samples, nil)
	m.SetTraffic(nil)
	m.SetServers(nil)
	have := scrape(t, m.Handler(), "gpuhost_", "DCGM_")
	for _, trace := range []string{string(gone), "gpuhost_servers", "gpuhost_network", "gpuhost_xid"} {
		if strings.Contains(have, trace) {
			t.Errorf("%s is still there", trace)
		}
	}
}

func TestOptions(t *testing.T) {
	inv, samples := host(t)
	off := newTelemetry(telemetry.Options{WithoutDCGM: true})
	off.SetGPUs(inv, samples, nil)
	off.ObserveXID(inv.Devices[0].UUID, 13)
	if have := scrape(t, off.Handler(), "DCGM_"); have != "" {
		t.Errorf("turned off, have\n%s", have)
	}
	old := newTelemetry(telemetry.Options{HostnameLabel: "Hostname"})
	old.SetGPUs(inv, samples, nil)
	if have := scrape(t, old.Handler(), "DCGM_FI_DEV_GPU_TEMP"); !strings.Contains(have, `Hostname="host-1"`) {
		t.Errorf("have\n%s", have)
	}
}

func TestOddBytesOfADeviceCostNoScrape(t *testing.T) {
	m := newTelemetry(telemetry.Options{})
	inv, samples := host(t)
	inv.Devices[0].Model = "NVIDIA \xff\"\n"
	m.SetGPUs(inv, samples, nil)
	if have := scrape(t, m.Handler(), "gpuhost_gpu_power_watts{"); strings.Count(have, "\n") != 8 {
		t.Errorf("have\n%s", have)
	}
}

// TestOwnNamesAreClean asks Prometheus' linter. DCGM's names are NVIDIA's.
func TestOwnNamesAreClean(t *testing.T) {
	m := newTelemetry(telemetry.Options{})
	inv, samples := host(t)
	m.SetGPUs(inv, samples, nil)
	m.ObserveXID(inv.Devices[0].UUID, 13)
	m.ObserveStep("network", "load", 1, true)
	m.AuditFailure("I1")
	m.ACLUpdate(1)
	m.SetServers(map[spec.Phase]int{spec.PhaseRunning: 1})
	m.SetTraffic([]telemetry.Traffic{{}})
	problems, err := testutil.GatherAndLint(m.Gatherer())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "gpuhost_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// TestScrapeWhileCollecting runs both together for the race detector.
func TestScrapeWhileCollecting(t *testing.T) {
	m := newTelemetry(telemetry.Options{})
	inv, samples := host(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 50 {
			m.SetGPUs(inv, samples, nil)
			m.ObserveXID(inv.Devices[i%8].UUID, i)
			m.ObserveStep("network", "load", 1, true)
		}
	}()
	for range 20 {
		scrape(t, m.Handler(), "gpuhost_")
	}
	<-done
}

// BenchmarkScrape is P6 of docs/specification.md: eight GPUs, both name sets.
func BenchmarkScrape(b *testing.B) {
	m := newTelemetry(telemetry.Options{})
	inv, samples := host(b)
	owners := map[gpu.UUID]telemetry.Owner{}
	for i, d := range inv.Devices {
		owners[d.UUID] = telemetry.Owner{Tenant: "acme", Server: fmt.Sprintf("train-%d", i)}
	}
	m.SetGPUs(inv, samples, owners)
	handler := m.Handler()
	var took []time.Duration
	var answer connection
	request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	began := cpuTime(b)
	for b.Loop() {
		answer.Reset()
		begin := time.Now()
		handler.ServeHTTP(&answer, request)
		took = append(took, time.Since(begin))
	}
	b.ReportMetric(float64((cpuTime(b)-began).Microseconds())/float64(len(took)), "cpu-µs/op")
	slices.Sort(took)
	series, err := testutil.GatherAndCount(m.Gatherer())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(series), "series")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
}

// connection takes an answer as a server's does: into memory that is there. A
// recorder's memory, made anew for each, was two thirds of all that a scrape
// allocated.
type connection struct {
	bytes.Buffer
	header http.Header
}

// Header implements http.ResponseWriter.
func (c *connection) Header() http.Header {
	if c.header == nil {
		c.header = make(http.Header)
	}
	return c.header
}

// WriteHeader implements http.ResponseWriter.
func (*connection) WriteHeader(int) {}

// cpuTime is what this process has used of all processors: beside wall time, it
// says what a scrape costs on a machine that is busy with other things.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
