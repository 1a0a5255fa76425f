package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReloadTakesWhatMayChange(t *testing.T) {
	load := func(flags map[string]string) *Config {
		c, err := Load(Options{Root: t.TempDir(), Flags: flags})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	old := load(map[string]string{"network.mtu": "1400", "log.level": "warn"})
	got, waiting := old.Reload(load(map[string]string{
		"log.level": "debug", "audit.interval": "5s", "audit.policy": "report", "images.disk_high": "60", "images.disk_low": "50",
		"metrics.listen": "127.0.0.1:1", "api.group": "staff",
	}))
	if diff := cmp.Diff([]string{"metrics.listen", "network.mtu", "api.group"}, waiting); diff != "" {
		t.Error(diff)
	}
	origins := make(map[string]string)
	for _, s := range got.Settings() {
		if s.Origin != "default" {
			origins[s.Key] = s.Value
		}
	}
	want := map[string]string{
		"network.mtu": "1400", "log.level": `"debug"`, "audit.interval": `"5s"`, "audit.policy": `"report"`, "images.disk_high": "60", "images.disk_low": "50",
	}
	if diff := cmp.Diff(want, origins); diff != "" {
		t.Error(diff)
	}
	if old.Log.Level != "warn" {
		t.Error("what was in force was changed in place")
	}
}
