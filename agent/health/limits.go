package health

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Limit is a kernel limit that is too low for a host full of instances where
// nobody raised it.
type Limit struct {
	Name  string // as sysctl writes it
	Floor uint64
	Why   string
}

// Limits are what a host of 1,000 instances needs. The kernel's own values do for
// about 120.
func Limits() []Limit {
	return []Limit{
		{"fs.inotify.max_user_instances", 8192, "a shim and a log writer hold one each for every instance"},
	}
}

// File is where the kernel shows the limit; proc is "/proc".
func (l Limit) File(proc string) string {
	return filepath.Join(proc, "sys", strings.ReplaceAll(l.Name, ".", "/"))
}

// Value reads the limit.
func (l Limit) Value(proc string) (uint64, error) {
	text, err := os.ReadFile(l.File(proc))
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", l.Name, err)
	}
	value, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", l.Name, err)
	}
	return value, nil
}

// Raise brings the limit to its floor, and says what it was. It never lowers it.
func (l Limit) Raise(proc string) (before uint64, err error) {
	before, err = l.Value(proc)
	if err != nil || before >= l.Floor {
		return before, err
	}
	if err := os.WriteFile(l.File(proc), []byte(strconv.FormatUint(l.Floor, 10)), 0o644); err != nil {
		return before, fmt.Errorf("raise %s: %w", l.Name, err)
	}
	return before, nil
}

func checkLimits(context.Context, Facts) Result { return judgeLimits("/proc") }

func judgeLimits(proc string) Result {
	for _, l := range Limits() {
		switch value, err := l.Value(proc); {
		case err != nil:
			return fail("", "%v", err)
		case value < l.Floor:
			return Result{State: Warn, Message: fmt.Sprintf("%s is %d: %s", l.Name, value, l.Why),
				Hint: fmt.Sprintf("sysctl -w %s=%d", l.Name, l.Floor)}
		}
	}
	return pass("kernel limits suffice for a full host")
}
