package e2e_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestSimulatedFaults: a GPU that breaks is told within ten seconds, takes no tenant
// from the others, and the host goes on with the rest.
func TestSimulatedFaults(t *testing.T) {
	h := newHost(t)
	h.mustStart()
	h.run("acme", "a", []string{"--gpus", "1"}, "sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait")
	h.settled()
	a := h.processOf("acme/a")

	h.expect(0, "sim", "xid", "1", "79")
	if out := h.expect(0, "events"); !strings.Contains(out.stdout, "XID 79") {
		t.Errorf("the events are\n%s", out)
	}
	h.metricsShow(`gpuhost_xid_errors_total{gpu="1"`, `xid="79"} 1`)
	h.expect(0, "sim", "temperature", "2", "95")
	h.metricsShow(`gpuhost_gpu_temperature_celsius{gpu="2"`, "} 95")
	h.expect(0, "sim", "ecc", "3", "7")
	h.metricsShow(`gpuhost_gpu_ecc_uncorrected_errors_total{gpu="3"`, "} 7")

	for gpu, fault := range map[string]string{"7": "hang", "6": "unplug"} {
		broken := time.Now()
		h.expect(0, "sim", fault, gpu)
		within(t, 10*time.Second-time.Since(broken), func() error {
			if out := h.gpuhost("status"); out.code != 3 || !strings.Contains(out.stdout, "measure GPU "+gpu) {
				return fmt.Errorf("%s of GPU %s: %s", fault, gpu, out)
			}
			return nil
		})
	}
	h.metricsShow(`gpuhost_problem{problem="GPU-`, "} 1")
	if status, text := h.api("GET", "/readyz", "", ""); status != 200 {
		t.Errorf("with two broken GPUs: %d %s", status, text)
	}
	h.expect(0, "sim", "hang", "5")
	h.run("globex", "b", []string{"--gpus", "1"}, "sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait")
	h.expect(0, "audit", "globex/b")
	if now := h.processOf("acme/a"); now != a {
		t.Errorf("a was disturbed: %s, was %s", now, a)
	}
	h.expect(0, "sim", "mend")
}

// metricsShow waits for a series that begins and ends so.
func (h *host) metricsShow(begin, end string) {
	h.t.Helper()
	within(h.t, 10*time.Second, func() error {
		_, text := h.api("GET", "/metrics", "", "")
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, begin) && strings.HasSuffix(strings.TrimSpace(line), end) {
				return nil
			}
		}
		return errors.New("no series " + begin + "..." + end)
	})
}
