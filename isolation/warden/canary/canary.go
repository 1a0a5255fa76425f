// Package canary is the agent's side of `warden canary`: the arguments to start
// it with and what its output means. isolation/warden/launch runs it in a cgroup
// beside the task's.
package canary

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"syscall"
)

// Node is a device to try, and where it lies.
type Node struct {
	Path         string
	Major, Minor uint32
}

// Result is what opening one node for reading and writing came to. Errno 0 is
// success.
type Result struct {
	Path  string        `json:"path"`
	Major uint32        `json:"major"`
	Minor uint32        `json:"minor"`
	Errno syscall.Errno `json:"errno"`
}

// Denied says that the device program refused: EPERM. Every other answer means
// that it let the try through to file modes (EACCES) or the driver (ENXIO).
func (r Result) Denied() bool { return r.Errno == syscall.EPERM }

// Options of a run.
type Options struct {
	Nodes []Node
	UID   int // user to try as; 0 stays root
}

// Args are the arguments of the warden binary.
func (o Options) Args() []string {
	args := []string{"canary", "--uid", strconv.Itoa(o.UID)}
	for _, n := range o.Nodes {
		args = append(args, "--node", fmt.Sprintf("%s:%d:%d", n.Path, n.Major, n.Minor))
	}
	return args
}

// Parse reads a canary's output. Half a line is an error: a canary that died has
// proved nothing.
func Parse(output io.Reader) ([]Result, error) {
	var results []Result
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		var r Result
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("read canary: %w", err)
		}
		if r.Path == "" {
			return nil, errors.New("read canary: an answer names no node")
		}
		results = append(results, r)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read canary: %w", err)
	}
	return results, nil
}
