package bench_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// watched is how long a converged host's processors are looked at: two minutes hold
// a whole resync and two rounds of the audit.
const watched = 2 * time.Minute

// ours are the processes that the promise counts; the rest belongs to the
// runtime and is told beside them.
var ours = []string{"gpuhost", "nvml-helper", "warden", "warden-services"}

// BenchmarkP7Footprint is what a converged host costs.
func BenchmarkP7Footprint(b *testing.B) {
	h := newHost(b)
	n := amountsOf().converged
	h.fill(n)
	h.eventually("nothing is to be done", h.converged)
	r := newReport(b, fmt.Sprintf("P7: 8 GPUs, %d instances, converged", n))
	before := processes(b)
	pause(watched)
	after := processes(b)
	var pss, ticks int
	for _, name := range append(slices.Clone(ours), "containerd", "containerd-shim-runc-v2") {
		p, was := after[name], before[name]
		r.say("  %-24s %4d processes  PSS %7.1f MiB  CPU %.2f %% of a core", name, p.count, mib(p.pss), cpuShare(p.ticks-was.ticks))
		if slices.Contains(ours, name) {
			pss += p.pss
			ticks += p.ticks - was.ticks
		}
	}
	r.say("agent, helper, wardens, services: PSS %.1f MiB (promised: 96 with 50 instances), CPU %.2f %% of a core over %s (promised: 0.5)", mib(pss), cpuShare(ticks), watched)
	r.say("agent alone: PSS %.1f MiB (promised: 48)", mib(after["gpuhost"].pss))
	r.metric(mib(pss), "MiB")
	r.metric(mib(after["gpuhost"].pss), "agent-MiB")
	r.metric(cpuShare(ticks), "cpu-%")
	r.print()
}

// pause lets a converged host be: the time itself is what is measured.
func pause(d time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	<-ctx.Done()
}

func mib(kib int) float64 { return float64(kib) / 1024 }

// cpuShare turns clock ticks, of which there are 100 a second on Linux, into per
// cent of a core.
func cpuShare(ticks int) float64 { return float64(ticks) / 100 / watched.Seconds() * 100 }

// usage is what the processes of one program take together.
type usage struct {
	count int
	pss   int // KiB
	ticks int
}

// processes sums up the programs of this process namespace.
func processes(b *testing.B) map[string]usage {
	b.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		b.Fatal(err)
	}
	sum := make(map[string]usage)
	for _, dir := range dirs {
		exe, err := os.Readlink(filepath.Join(dir, "exe"))
		if err != nil {
			continue // a kernel's, or it has ended
		}
		name := filepath.Base(exe)
		u := sum[name]
		u.count++
		u.pss += pssOf(dir)
		u.ticks += ticksOf(dir)
		sum[name] = u
	}
	return sum
}

// pssOf reads "Pss:  1234 kB".
func pssOf(dir string) int {
	text, _ := os.ReadFile(filepath.Join(dir, "smaps_rollup")) // 0 where it has ended
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) > 1 && fields[0] == "Pss:" {
			kib, _ := strconv.Atoi(fields[1])
			return kib
		}
	}
	return 0
}

// ticksOf sums utime, stime, cutime and cstime, fields 14 to 17 of proc(5)'s stat: a
// canary that came and went counts with the agent that sent it. The name before
// them may hold anything, up to its last parenthesis.
func ticksOf(dir string) int {
	text, _ := os.ReadFile(filepath.Join(dir, "stat")) // 0 where it has ended
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 15 {
		return 0
	}
	sum := 0
	for _, field := range fields[11:15] {
		ticks, _ := strconv.Atoi(field)
		sum += ticks
	}
	return sum
}
