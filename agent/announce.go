package agent

import (
	"context"
	"time"

	"github.com/gpuhost/gpuhost/agent/service"
	"github.com/gpuhost/gpuhost/systemd/notify"
)

// lineInterval is how old the line of `systemctl status` may be.
const lineInterval = 10 * time.Second

// announce tells the service manager that the API answers, and from then on what
// `gpuhost status` says, in one line.
func (h *host) announce(ctx context.Context) error {
	if err := notify.Ready(); err != nil {
		return err
	}
	if notify.Managed() {
		_ = every(ctx, lineInterval, h.tellLine) // it ends with ctx
	}
	<-ctx.Done()
	return notify.Stopping()
}

func (h *host) tellLine(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lineInterval)
	defer cancel()
	line := "it cannot be said how this host is"
	if status, err := h.hostService().Status(ctx); err == nil {
		line = service.Line(status)
	}
	if err := notify.Status(line); err != nil {
		h.log.Warn("tell the service manager how the host is", "error", err)
	}
}
