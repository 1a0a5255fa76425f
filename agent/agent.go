// Package agent wires the daemon together and runs it: which parts there are,
// what each is made of, and the long-lived tasks. It decides nothing about
// tenants; agent/reconcile does.
//
//	err := agent.Run(ctx, agent.Options{Root: "/tmp/lab", Sim: "dgx-h100"})
package agent

import (
	"context"
	"errors"
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
	Log     io.Writer
}

// Run is the daemon. It returns nil when ctx ends; everything on the host stays
// as it is then.
func Run(ctx context.Context, o Options) error {
	cfg, err := config.Load(config.Options{Root: o.Root, File: o.Config, Environ: o.Environ})
	if err != nil {
		return err
	}
	log, err := newLog(o.Log, cfg.Log)
	if err != nil {
		return err
	}
	h := newHost(cfg, o, log)
	if err := h.assembleAll(ctx); err != nil {
		return err
	}
	log.Info("agent starts", "version", o.Version, "root", o.Root, "sim", o.Sim, "host", h.id)
	return errors.Join(h.run(ctx), h.close())
}

func newLog(w io.Writer, c config.Log) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		return nil, fault.Wrap(fault.Invalid, "read log.level", err)
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return slog.New(slog.NewTextHandler(w, options)), nil
}

// run starts every long-lived task and waits for all of them. The first that
// fails ends the rest.
func (h *host) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	if h.supervisor != nil {
		group.Go(func() error { return h.supervisor.Run(ctx) })
	}
	group.Go(func() error { return h.loop.Run(ctx) })
	group.Go(func() error { return h.watchFiles(ctx) })
	group.Go(func() error { return h.watchExits(ctx) })
	group.Go(func() error { return h.watchRuntime(ctx) })
	group.Go(func() error { return h.watchXIDs(ctx) })
	group.Go(func() error { return h.network.WatchHost(ctx, h.loop.TriggerHost) })
	group.Go(func() error { return every(ctx, sampleInterval, h.sample) })
	group.Go(func() error { return every(ctx, collectInterval, h.collectImages) })
	group.Go(func() error { return every(ctx, h.config.Audit.Interval, h.audit) })
	group.Go(func() error { return h.server.Serve(ctx, h.listener) })
	group.Go(func() error { return h.serveMetrics(ctx) })
	group.Go(func() error { return notify.Watch(ctx, h.loop.Alive) })
	group.Go(func() error { return h.announce(ctx) })
	err := group.Wait()
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil
	}
	return err
}

// announce tells the service manager that the API answers.
func (h *host) announce(ctx context.Context) error {
	if err := notify.Ready(); err != nil {
		return err
	}
	<-ctx.Done()
	return notify.Stopping()
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
