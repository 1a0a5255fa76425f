package nvml

import (
	"testing"
	"time"
)

// TestAHelpersFirstCallMayTakeLonger: on a machine that has just booted nothing of
// the helper and its library is in memory, and its first answer took over 2 s.
func TestAHelpersFirstCallMayTakeLonger(t *testing.T) {
	for _, row := range []struct {
		name    string
		options Options
		asked   uint64
		want    time.Duration
	}{
		{"the first", Options{}, 0, 10 * time.Second},
		{"the second", Options{}, 1, 2 * time.Second},
		{"the first is never given less than any other", Options{Deadline: time.Minute}, 0, time.Minute},
	} {
		t.Run(row.name, func(t *testing.T) {
			if have := Open(row.options).deadline(&process{lastID: row.asked}); have != row.want {
				t.Errorf("have %v, want %v", have, row.want)
			}
		})
	}
}
