package bench_test

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// times are measurements of one thing.
type times []time.Duration

// at is the q-th part of the sorted times: 0.5 the median.
func (t times) at(q float64) time.Duration {
	if len(t) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(t))
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}

func (t times) median() time.Duration { return t.at(0.5) }

// String is one line of a report.
func (t times) String() string {
	return fmt.Sprintf("p50 %8s  p90 %8s  min %8s  max %8s  n %d", ms(t.median()), ms(t.at(0.9)), ms(t.at(0)), ms(t.at(1)), len(t))
}

func ms(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
}

// ratio is ours against the peer's.
func ratio(ours, peer time.Duration) float64 { return float64(ours) / float64(peer) }

// report collects a benchmark's lines and metrics.
type report struct {
	b     *testing.B
	lines []string
}

// newReport begins with the machine and its load.
func newReport(b *testing.B, title string) *report {
	r := &report{b: b}
	r.say("%s", title)
	r.say("machine: %s, %d CPUs, Linux %s; load before: %s", model(), runtime.NumCPU(), kernel(), load())
	return r
}

func (r *report) say(format string, args ...any) {
	r.lines = append(r.lines, fmt.Sprintf(format, args...))
}

// metric makes a figure one of the benchmark's own.
func (r *report) metric(value float64, unit string) { r.b.ReportMetric(value, unit) }

// print ends the report. The time that go test itself measured means nothing
// here.
func (r *report) print() {
	r.say("load after: %s", load())
	r.b.ReportMetric(0, "ns/op")
	// Not b.Log, which cuts a report off after ten lines.
	fmt.Printf("\n%s\n", strings.Join(r.lines, "\n"))
}

// load is the machine's, of the last one, five and fifteen minutes.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err.Error()
	}
	fields := strings.Fields(string(text))
	return strings.Join(fields[:min(3, len(fields))], " ")
}

func model() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return err.Error()
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func kernel() string {
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text))
}
