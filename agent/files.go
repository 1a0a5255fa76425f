package agent

import (
	"cmp"
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

// Tasks of the agent that may have a problem while all that is wanted is in force.
const (
	taskSettings = "settings"
	taskFiles    = "spec.d"
)

// watchFiles reads spec.d at the start and, with the settings, whenever the service
// manager asks for a reload (SIGHUP).
func (h *host) watchFiles(ctx context.Context) error {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	h.reading.Lock()
	_ = h.readDesired(ctx) // told
	h.reading.Unlock()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangups:
			_, _ = h.reload(ctx) // told
		}
	}
}

// reload reads the settings and spec.d as they are now, and says which settings
// differ and wait for a restart. What is bad leaves in force what was read last, is
// the error, and is a problem until it is mended.
func (h *host) reload(ctx context.Context) (waiting []string, err error) {
	h.reading.Lock()
	defer h.reading.Unlock()
	h.log.Info("reload")
	waiting, err = h.readSettings()
	h.loop.NoteProblem(taskSettings, err)
	if err != nil {
		h.log.Error("read settings; what was in force stays so", "error", err)
	}
	return waiting, cmp.Or(err, h.readDesired(ctx))
}

// readSettings takes what may change while the agent runs from the settings as
// they are now. What else differs waits for a restart.
func (h *host) readSettings() (waiting []string, err error) {
	next, err := config.Load(h.options.settings())
	if err != nil {
		return nil, err
	}
	inForce, waiting := h.settings().Reload(next)
	h.live.Store(inForce)
	h.logLevel.Set(levelOf(inForce.Log))
	if len(waiting) > 0 {
		h.log.Warn("settings that changed are in force after a restart only: systemctl restart gpuhost; no tenant notices", "keys", strings.Join(waiting, " "))
	}
	return waiting, nil
}

// settings are those in force at this moment. The parts were made of h.config.
func (h *host) settings() *config.Config { return h.live.Load() }

// readDesired is readFiles with its outcome told.
func (h *host) readDesired(ctx context.Context) error {
	err := h.readFiles(ctx)
	h.loop.NoteProblem(taskFiles, err)
	if err != nil {
		h.log.Error("read desired state; what was in force stays so", "folder", h.paths.SpecDir(), "error", err)
	}
	return err
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
