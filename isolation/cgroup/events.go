package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// populated says whether any process lives below dir. A cgroup that is gone
// has none.
func populated(dir string) (bool, error) {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read events: %w", err)
	}
	value, ok := parseEvents(string(text))["populated"]
	if !ok {
		return false, fmt.Errorf("read events of %s: no line about populated", dir)
	}
	return value != 0, nil
}

// parseEvents reads "key number" lines and skips what is not one.
func parseEvents(text string) map[string]uint64 {
	events := map[string]uint64{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			events[key] = n
		}
	}
	return events
}
