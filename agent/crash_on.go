//go:build crashtest

package agent

import (
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"

	"github.com/gpuhost/gpuhost/agent/plan"
)

// crashPoint kills the agent at the n-th moment before or after a step, n being
// GPUHOST_CRASH_AT. The crash test builds its binary with this tag.
func crashPoint() func(when string, step plan.Step) {
	n, err := strconv.ParseInt(os.Getenv("GPUHOST_CRASH_AT"), 10, 64)
	if err != nil {
		return nil
	}
	var passed atomic.Int64
	return func(when string, step plan.Step) {
		if passed.Add(1) != n {
			return
		}
		fmt.Fprintf(os.Stderr, "crash point %d: %s %s\n", n, when, step.ID)
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal ends every thread; do not run on until it does
	}
}
