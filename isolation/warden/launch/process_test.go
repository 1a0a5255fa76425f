package launch

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestLimitsWhereThereAreControllers: a host has all of them, a development machine
// some.
func TestLimitsWhereThereAreControllers(t *testing.T) {
	for name, row := range map[string]struct{ files, want map[string]string }{
		"all": {
			map[string]string{"cpu.max": "", "memory.high": "", "pids.max": ""},
			map[string]string{"cpu.max": "400000 100000", "memory.high": "2147483648", "pids.max": "65536"},
		},
		"some": {map[string]string{"pids.max": ""}, map[string]string{"pids.max": "65536"}},
		"none": {map[string]string{}, map[string]string{}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file := range row.files {
				if err := os.WriteFile(filepath.Join(dir, file), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := limit(dir); err != nil {
				t.Fatal(err)
			}
			have := map[string]string{}
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				text, err := os.ReadFile(filepath.Join(dir, e.Name()))
				if err != nil {
					t.Fatal(err)
				}
				have[e.Name()] = string(text)
			}
			if diff := cmp.Diff(row.want, have); diff != "" {
				t.Error(diff)
			}
		})
	}
}
