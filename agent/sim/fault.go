package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/google/renameio/v2"
)

// Faults are what is broken in the pretend host, by the GPU's index. They are
// kept in a file, so that they outlive the helper that shows them.
type Faults struct {
	Hang    []int          `json:"hang,omitempty"`    // reading it never returns
	Unplug  []int          `json:"unplug,omitempty"`  // it has fallen off the bus
	Celsius map[int]uint32 `json:"celsius,omitempty"` // its temperature
	ECC     map[int]uint64 `json:"ecc,omitempty"`     // errors of its memory that were not corrected
	Used    map[int]uint64 `json:"used,omitempty"`    // bytes of its memory in use
	Busy    map[int]int    `json:"busy,omitempty"`    // processes the driver sees on it
	VBIOS   map[int]string `json:"vbios,omitempty"`   // what its VBIOS says
}

// Hangs says whether reading GPU i never returns.
func (f Faults) Hangs(i int) bool { return slices.Contains(f.Hang, i) }

// Gone says whether GPU i is off the bus.
func (f Faults) Gone(i int) bool { return slices.Contains(f.Unplug, i) }

func (f Faults) apply(i int, r Reading) Reading {
	if c, set := f.Celsius[i]; set {
		r.Celsius = c
	}
	if used, set := f.Used[i]; set {
		r.MemoryUsedBytes = used
	}
	r.Processes = f.Busy[i]
	r.ECCErrors = f.ECC[i]
	return r
}

// ReadFaults reads the file; that there is none means that nothing is broken.
func ReadFaults(path string) (Faults, error) {
	var f Faults
	if path == "" {
		return f, nil
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(text, &f); err != nil {
		return f, fmt.Errorf("read simulated faults: %w", err)
	}
	return f, nil
}

// WriteFaults replaces the file at once.
func WriteFaults(path string, f Faults) error {
	text, err := json.Marshal(f)
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(path, text, 0o600); err != nil {
		return fmt.Errorf("write simulated faults: %w", err)
	}
	return nil
}
