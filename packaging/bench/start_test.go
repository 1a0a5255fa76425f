package bench_test

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gpuhost/gpuhost/agent/api"
)

// BenchmarkP1Start is from one command line to the next, image present, each
// start beside its peers'.
func BenchmarkP1Start(b *testing.B) {
	h := newHost(b)
	peer := newCtr(b, h)
	dock, noDocker := newDocker(b)
	r := newReport(b, "P1: start of an instance, detached, CLI to CLI; interleaved")
	h.gpuhost(h.runArgs("warm", 1)...) // the tenant's network, the image
	steps := newStepTable()
	var ours, ctrs, dockers times
	for i := range amountsOf().starts {
		name := fmt.Sprintf("p1-%d", i)
		ours = append(ours, took(b, h.command(h.runArgs(name, 1)...)))
		steps.add(h.change(context.Background(), name))
		h.gpuhost("rm", "--yes", "acme/"+name)
		ctrs = append(ctrs, took(b, peer.start(name)))
		peer.remove(name)
		if noDocker == nil {
			dockers = append(dockers, took(b, dock.start(name)))
			dock.remove(name)
		}
		h.eventually("its GPU is free", h.gpusFree(7))
	}
	r.say("gpuhost run             %s", ours)
	r.say("ctr run -d, userns      %s", ctrs)
	if noDocker == nil {
		r.say("docker run -d, bridge   %s", dockers)
		r.say("ratio to docker: %.2f (promised: 0.55)", ratio(ours.median(), dockers.median()))
		r.metric(ratio(ours.median(), dockers.median()), "×docker")
	} else {
		r.say("docker: not measured: %v", noDocker)
	}
	r.say("ratio to ctr: %.2f (promised: 1.2)", ratio(ours.median(), ctrs.median()))
	r.metric(ratio(ours.median(), ctrs.median()), "×ctr")
	r.metric(float64(ours.median().Microseconds())/1000, "p50-ms")
	steps.say(r, ours.median())
	r.print()
}

// gpusFree asks for a number of free GPUs.
func (h *host) gpusFree(n int) func(context.Context) error {
	return func(ctx context.Context) error {
		free, err := h.freeGPUs(ctx)
		if err == nil && free < n {
			err = fmt.Errorf("%d GPUs are free, not %d", free, n)
		}
		return err
	}
}

// took measures a command that has to succeed.
func took(b *testing.B, cmd *exec.Cmd) time.Duration {
	b.Helper()
	begin := time.Now()
	must(b, cmd)
	return time.Since(begin)
}

// stepTable collects how long each kind of step took.
type stepTable struct {
	order []string
	took  map[string]times
	gaps  times // between the first step's start and the last one's end, in no step
}

func newStepTable() *stepTable { return &stepTable{took: make(map[string]times)} }

func (s *stepTable) add(c api.Change) {
	var inSteps time.Duration
	var end time.Time
	for _, step := range c.Steps {
		verb, _, _ := strings.Cut(step.ID, " ")
		if !slices.Contains(s.order, verb) {
			s.order = append(s.order, verb)
		}
		d := time.Duration(step.Duration)
		s.took[verb] = append(s.took[verb], d)
		inSteps += d
		if e := step.StartedAt.Add(d); e.After(end) {
			end = e
		}
	}
	s.took["change opened → first step"] = append(s.took["change opened → first step"], c.Steps[0].StartedAt.Sub(c.At))
	s.gaps = append(s.gaps, end.Sub(c.Steps[0].StartedAt)-inSteps)
}

// say prints the medians, and what of the whole is in no step.
func (s *stepTable) say(r *report, whole time.Duration) {
	const first = "change opened → first step"
	r.say("where the time goes (medians):")
	sum := s.took[first].median() + s.gaps.median()
	r.say("  %-34s %10s", first, ms(s.took[first].median()))
	for _, verb := range s.order {
		r.say("  %-34s %10s", verb, ms(s.took[verb].median()))
		sum += s.took[verb].median()
	}
	r.say("  %-34s %10s", "between steps", ms(s.gaps.median()))
	r.say("  %-34s %10s", "the rest: processes, API, last look", ms(whole-sum))
	r.say("the audit's share: %s", ms(s.took["isolation/audit"].median()+s.took["network/prove-guard"].median()))
}

// said runs a command; its error holds what it printed.
func said(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// BenchmarkP2Crowd is many instances at once beside as many of containerd alone.
func BenchmarkP2Crowd(b *testing.B) {
	h := newHost(b)
	peer := newCtr(b, h)
	n := amountsOf().crowd
	h.many = n
	r := newReport(b, fmt.Sprintf("P2: %d instances at once", n))
	h.gpuhost(h.runArgs("warm", 0)...)
	var ours, ctrs times
	for round := range 3 {
		ours = append(ours, h.crowd(fmt.Sprintf("r%d", round), n))
		ctrs = append(ctrs, peer.crowd(fmt.Sprintf("r%d", round), n))
	}
	r.say("gpuhost run --count %d       %s", n, ours)
	r.say("ctr run -d, %d in parallel   %s", n, ctrs)
	r.say("ratio to ctr: %.2f (promised: 1.2)", ratio(ours.median(), ctrs.median()))
	r.metric(ratio(ours.median(), ctrs.median()), "×ctr")
	r.metric(float64(ours.median().Milliseconds()), "ms")
	r.print()
}

// crowd starts n instances with one command, and removes them.
func (h *host) crowd(name string, n int) time.Duration {
	h.b.Helper()
	d := took(h.b, h.command(append([]string{fmt.Sprintf("--count=%d", n)}, h.runArgs(name, 0)...)...))
	args := []string{"rm", "--yes"}
	for i := range n {
		args = append(args, fmt.Sprintf("acme/%s-%d", name, i+1))
	}
	// Removing is not what is measured: who is not gone at the first try is tried again.
	_ = h.command(args...).Run()
	h.eventually("all are gone", func(ctx context.Context) error { return h.running(ctx, 1) })
	return d
}

// crowd starts n containers side by side, and removes them.
func (c *ctr) crowd(name string, n int) time.Duration {
	c.b.Helper()
	begin := time.Now()
	var group sync.WaitGroup
	failures := make([]error, n)
	for i := range n {
		group.Go(func() { failures[i] = said(c.start(fmt.Sprintf("%s-%d", name, i))) })
	}
	group.Wait()
	d := time.Since(begin)
	for i := range n {
		if failures[i] != nil {
			c.b.Fatalf("ctr run: %v", failures[i])
		}
		c.remove(fmt.Sprintf("%s-%d", name, i))
	}
	return d
}
