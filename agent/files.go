package agent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/signal"
	"syscall"

	"github.com/gpuhost/gpuhost/agent/spec"
)

// watchFiles reads spec.d at the start and whenever the agent is told to reload
// (SIGHUP). A bad folder leaves in force what was read last.
func (h *host) watchFiles(ctx context.Context) error {
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	for {
		if err := h.readFiles(ctx); err != nil {
			h.log.Error("read desired state; what was in force stays so", "folder", h.paths.SpecDir(), "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-reload:
			h.log.Info("reload")
		}
	}
}

// readFiles makes the folder's objects desired. Without a folder nothing is
// owned by files and nothing changes.
func (h *host) readFiles(ctx context.Context) error {
	dir := h.paths.SpecDir()
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	objects, err := spec.DecodeDir(os.DirFS(dir))
	if err != nil {
		return err
	}
	return h.loop.WriteFiles(ctx, objects)
}
