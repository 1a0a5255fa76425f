package agent

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// portPatience is between two tries to listen for Prometheus.
const portPatience = 5 * time.Second

// serveMetrics answers Prometheus on the address of the settings. While somebody
// else holds the port the agent does without, and says so: any local user can take
// it, and tenants need the agent more than a scrape.
func (h *host) serveMetrics(ctx context.Context) error {
	address := h.config.Metrics.Listen
	if address == "" {
		return nil
	}
	retry := time.NewTicker(portPatience)
	defer retry.Stop()
	listener, err := listenWhenFree(ctx, address, retry.C, func(err error) {
		h.loop.NoteProblem("metrics", err)
		if err != nil {
			h.log.Warn("metrics are not served", "error", err)
		}
	})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", h.metrics.Handler())
	server := &http.Server{
		Handler: mux, ReadTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// listenWhenFree listens on an address as soon as it can, and tells of every try.
func listenWhenFree(ctx context.Context, address string, again <-chan time.Time, tell func(error)) (net.Listener, error) {
	for {
		listener, err := net.Listen("tcp", address)
		if err == nil {
			tell(nil)
			return listener, nil
		}
		tell(fault.New(fault.Conflict, "listen for metrics on "+address, "%w", err).
			WithHint("ss -tlnp; or set metrics.listen to another address"))
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-again:
		}
	}
}
