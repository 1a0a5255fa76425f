// Package agent wires the daemon together and runs it: which parts there are,
// what each is made of, and the long-lived tasks. It decides nothing about
// tenants; agent/reconcile does.
//
//	err := agent.Run(ctx, agent.Options{Root: "/tmp/lab", Sim: "dgx-h100"})
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gpuhost/gpuhost/agent/config"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/systemd/notify"
)

// Options are the flags of `gpuhost agent`.
type Options struct {
	Config  string // file; "" for the usual places
	Root    string // puts everything below a folder; "" is the real host
	Sim     string // a simulated machine, "" for real GPUs
	Environ []string
	Version string
	Yes     bool // to [Remove]: although instances are stored
	Log     io.Writer
}

// Run is the daemon. It returns nil when ctx ends; everything on the host stays
// as it is then.
func Run(ctx context.Context, o Options) error {
	cfg, err := config.Load(o.settings())
	if err != nil {
		return err
	}
	log, level := newLog(o.Log, cfg.Log)
	raiseLimits(log)
	h := newHost(cfg, o, log)
	h.logLevel = level
	if err := h.assembleAll(ctx); err != nil {
		return err
	}
	log.Info("agent starts", "version", o.Version, "root", o.Root, "sim", o.Sim, "host", h.id)
	return errors.Join(h.run(ctx), h.close())
}

// settings is where the agent's settings come from.
func (o Options) settings() config.Options {
	return config.Options{Root: o.Root, File: o.Config, Environ: o.Environ}
}

// newLog makes the log and the level it has from then on.
func newLog(w io.Writer, c config.Log) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	level.Set(levelOf(c))
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options)), level
	}
	return slog.New(slog.NewTextHandler(w, options)), level
}

// levelOf reads a level that the settings have checked.
func levelOf(c config.Log) slog.Level {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		return slog.LevelInfo
	}
	return level
}

// task is one of the agent's long-lived tasks.
type task struct {
	name string
	run  func(context.Context) error
	// spare may end early: the agent does without it.
	spare bool
}

// run starts every long-lived task and waits for all of them.
func (h *host) run(ctx context.Context) error {
	beat := func(interval time.Duration, f func(context.Context)) func(context.Context) error {
		return func(ctx context.Context) error { return every(ctx, interval, f) }
	}
	tasks := []task{
		{name: "loop", run: h.loop.Run},
		{name: "files", run: h.watchFiles},
		{name: "exits", run: h.watchExits},
		{name: "runtime", run: h.watchRuntime},
		{name: "kernel log", run: h.watchXIDs, spare: true},
		{name: "host rules", run: func(ctx context.Context) error { return h.network.WatchHost(ctx, h.loop.TriggerHost) }},
		{name: "host addresses", run: func(ctx context.Context) error { return h.kernel.WatchAddresses(ctx, h.protect) }},
		{name: "samples", run: beat(sampleInterval, h.sample)},
		{name: "traffic", run: beat(trafficInterval, h.meter)},
		{name: "images", run: beat(collectInterval, h.collectImages)},
		{name: "audit", run: h.audit},
		{name: "API", run: func(ctx context.Context) error { return h.server.Serve(ctx, h.listener) }},
		{name: "metrics", run: h.serveMetrics, spare: h.config.Metrics.Listen == ""},
		{name: "watchdog", run: func(ctx context.Context) error { return notify.Watch(ctx, h.loop.Alive) }, spare: true},
		{name: "service manager", run: h.announce},
	}
	if h.supervisor != nil {
		tasks = append(tasks, task{name: "containerd", run: h.supervisor.Run})
	}
	return together(ctx, tasks)
}

// together runs tasks until ctx ends, which is no failure, or one of them fails,
// which ends the rest. A task that ends by itself has failed, unless it is spare.
func together(ctx context.Context, tasks []task) error {
	group, within := errgroup.WithContext(ctx)
	for _, t := range tasks {
		group.Go(func() error {
			err := t.run(within)
			switch {
			case within.Err() != nil && (err == nil || errors.Is(err, context.Canceled)):
				return nil // it was told to end
			case err != nil:
				return fmt.Errorf("%s: %w", t.name, err)
			case t.spare:
				return nil
			}
			return fault.New(fault.Internal, t.name, "it ended by itself")
		})
	}
	return group.Wait()
}

// every calls f at once and then after each interval, until ctx ends. Missed
// beats are not made up for.
func every(ctx context.Context, interval time.Duration, f func(context.Context)) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		f(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
