package runtime

import (
	"os"
	"testing"
	"time"
)

// BenchmarkStart measures an instance's way from an unpacked image to running
// code, without network, nodes and audit, and its single steps.
func BenchmarkStart(b *testing.B) {
	h := newHost(b)
	lease := testLease(h.importBusybox("acme"), "sleep", "1000")
	var prepare, create, start time.Duration
	lap := func(sum *time.Duration, from time.Time) time.Time {
		now := time.Now()
		*sum += now.Sub(from)
		return now
	}
	for b.Loop() {
		b.StopTimer()
		if err := os.MkdirAll(h.config.Paths.CgroupDir(testUID), 0o755); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		at := time.Now()
		err := h.makeContainer(lease)
		lap(&prepare, at)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		h.readLog()
		b.StartTimer()
		at = time.Now()
		if _, err := h.client.CreateTask(b.Context(), lease.Tenant, lease.UID); err != nil {
			b.Fatal(err)
		}
		at = lap(&create, at)
		if err := h.client.StartTask(b.Context(), lease.Tenant, lease.UID); err != nil {
			b.Fatal(err)
		}
		lap(&start, at)
		b.StopTimer()
		h.remove()
		b.StartTimer()
	}
	for name, sum := range map[string]time.Duration{"prepare": prepare, "create": create, "start": start} {
		b.ReportMetric(float64(sum.Microseconds())/1000/float64(b.N), name+"-ms/op")
	}
}
