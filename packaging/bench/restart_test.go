package bench_test

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/gpuhost/gpuhost/agent/client"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// BenchmarkP8Restart kills the agent while tenants run and talk, and measures
// until its successor answers and has proved every control of every instance.
func BenchmarkP8Restart(b *testing.B) {
	h := newHost(b)
	n := amountsOf().restarted
	h.fill(n)
	r := newReport(b, fmt.Sprintf("P8: kill -9 of the agent with %d running instances", n))
	ctx := context.Background()
	before := h.pids(ctx)
	talk := newFlow(b, before["gpu-0"])
	var toAPI, toProved, toConverged times
	for range 5 {
		h.kill()
		begin := time.Now()
		toAPI = append(toAPI, h.start())
		h.eventually("every control passes", func(ctx context.Context) error { return proved(ctx, h.api, n) })
		toProved = append(toProved, time.Since(begin))
		h.eventually("nothing is to be done", h.converged)
		toConverged = append(toConverged, time.Since(begin))
	}
	sent, lost := talk.end(b)
	r.say("until the API answers           %s (promised: 1 s)", toAPI)
	r.say("until every control has passed  %s (promised: 3 s with 100)", toProved)
	r.say("until the plan is empty too     %s", toConverged)
	r.say("instances restarted: %d (promised: 0); datagrams lost over the restarts: %d of %d (promised: 0)",
		restarted(before, h.pids(ctx)), lost, sent)
	r.metric(float64(toAPI.median().Milliseconds()), "api-ms")
	r.metric(float64(toProved.median().Milliseconds()), "proved-ms")
	r.metric(float64(lost), "lost")
	r.print()
}

// proved says whether all n instances' controls pass, read from the kernel now.
func proved(ctx context.Context, c *client.Client, n int) error {
	reports, err := c.AuditAll(ctx)
	if err != nil {
		return err
	}
	if len(reports) != n {
		return fmt.Errorf("%d instances were audited, not %d", len(reports), n)
	}
	for _, r := range reports {
		if !r.Pass {
			return fmt.Errorf("%s does not pass: %+v", r.Object, r.Controls)
		}
	}
	return nil
}

// converged says whether there is nothing to be done.
func (h *host) converged(ctx context.Context) error {
	result, err := h.api.Plan(ctx, nil)
	if err != nil {
		return err
	}
	for _, o := range result.Objects {
		if !o.Plan.Empty() {
			return fmt.Errorf("%s: %s", o.Object, o.Plan.Text())
		}
	}
	return nil
}

// pids are the first processes of the running instances, by name.
func (h *host) pids(ctx context.Context) map[string]int {
	h.b.Helper()
	list, err := h.api.List(ctx, spec.KindInstance, "")
	if err != nil {
		h.b.Fatal(err)
	}
	pids := make(map[string]int)
	for _, o := range list {
		if o.Status != nil && o.Status.Instance != nil {
			pids[o.Metadata.Name] = o.Status.Instance.Pid
		}
	}
	return pids
}

// restarted counts those that have another process now, or none.
func restarted(before, after map[string]int) int {
	count := 0
	for name := range maps.Keys(before) {
		if before[name] != after[name] {
			count++
		}
	}
	return count
}
