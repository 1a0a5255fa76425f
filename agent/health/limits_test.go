package health

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLimits(t *testing.T) {
	limit := Limits()[0]
	for _, row := range []struct {
		name, before, after string
		state               State
	}{
		{"too low", "128\n", "8192", Warn},
		{"enough", "8192\n", "8192\n", Pass},
		{"more than enough", "65536\n", "65536\n", Pass},
		{"no number", "many\n", "many\n", Fail},
	} {
		t.Run(row.name, func(t *testing.T) {
			proc := t.TempDir()
			file := limit.File(proc)
			write(t, file, row.before)
			if got := judgeLimits(proc); got.State != row.state {
				t.Errorf("state %s, want %s: %s", got.State, row.state, got.Message)
			}
			_, err := limit.Raise(proc)
			if (err != nil) != (row.state == Fail) {
				t.Errorf("raise: %v", err)
			}
			if after, _ := os.ReadFile(file); string(after) != row.after {
				t.Errorf("after raising: %q, want %q", after, row.after)
			}
		})
	}
}

func TestLimitMissing(t *testing.T) {
	if _, err := Limits()[0].Raise(t.TempDir()); err == nil {
		t.Error("a kernel without the limit: no error")
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
