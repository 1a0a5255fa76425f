package agent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/gpuhost/gpuhost/agent/config"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// watchFiles reads spec.d at the start and, with the settings, whenever the agent
// is told to reload (SIGHUP). What is bad leaves in force what was read last, and
// is a problem until it is mended.
func (h *host) watchFiles(ctx context.Context) error {
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	for {
		err := h.readFiles(ctx)
		h.loop.NoteProblem("spec.d", err)
		if err != nil {
			h.log.Error("read desired state; what was in force stays so", "folder", h.paths.SpecDir(), "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-reload:
			h.log.Info("reload")
		}
		err = h.readSettings()
		h.loop.NoteProblem("settings", err)
		if err != nil {
			h.log.Error("read settings; what was in force stays so", "error", err)
		}
	}
}

// readSettings takes what may change while the agent runs from the settings as
// they are now, and tells what else differs: that waits for a restart.
func (h *host) readSettings() error {
	next, err := config.Load(h.options.settings())
	if err != nil {
		return err
	}
	inForce, waiting := h.settings().Reload(next)
	h.live.Store(inForce)
	h.logLevel.Set(levelOf(inForce.Log))
	if len(waiting) > 0 {
		h.log.Warn("settings that changed are in force after a restart only: systemctl restart gpuhost; no tenant notices", "keys", strings.Join(waiting, " "))
	}
	return nil
}

// settings are those in force at this moment. The parts were made of h.config.
func (h *host) settings() *config.Config { return h.live.Load() }

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
