package agent

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gpuhost/gpuhost/agent/config"
)

func TestAReloadOfTheSettings(t *testing.T) {
	root := t.TempDir()
	file := filepath.Join(config.PathsBelow(root).Etc, "gpuhost.toml")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	options := Options{Root: root}
	cfg, err := config.Load(options.settings())
	if err != nil {
		t.Fatal(err)
	}
	var told bytes.Buffer
	log, level := newLog(&told, cfg.Log)
	h := newHost(cfg, options, log)
	h.logLevel = level
	for _, step := range []struct {
		name, file string
		level      slog.Level
		policy     string
		bad        string // what the error names
		waits      string // what the log names
	}{
		{"what may change", "[log]\nlevel = \"debug\"\n[audit]\npolicy = \"report\"\n", slog.LevelDebug, "report", "", ""},
		{"an unknown key", "[log]\nlevle = \"warn\"\n", slog.LevelDebug, "report", "levle", ""},
		{"what waits for a restart", "[log]\nlevel = \"warn\"\n[metrics]\nlisten = \"\"\n", slog.LevelWarn, "fence", "", "metrics.listen"},
		{"as at the start", "", slog.LevelInfo, "fence", "", ""},
	} {
		write(step.file)
		told.Reset()
		bad := ""
		waiting, err := h.readSettings()
		if err != nil {
			bad = err.Error()
		}
		if got := h.settings(); level.Level() != step.level || got.Audit.Policy != step.policy || got.Metrics.Listen != cfg.Metrics.Listen {
			t.Errorf("%s: level %s, %+v", step.name, level.Level(), got)
		}
		if (bad == "") != (step.bad == "") || !strings.Contains(bad, step.bad) {
			t.Errorf("%s: the error is %q, want one of %q", step.name, bad, step.bad)
		}
		if got := strings.Join(waiting, " "); got != step.waits {
			t.Errorf("%s: %q waits for a restart, want %q", step.name, got, step.waits)
		}
		if waits := told.String(); (waits == "") != (step.waits == "") || !strings.Contains(waits, step.waits) {
			t.Errorf("%s: the log is %q, want one of %q", step.name, waits, step.waits)
		}
	}
}
