//go:build crashtest

package agent

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/gpuhost/gpuhost/agent/plan"
)

// crashPoint ends the agent at one moment before or after a step: the n-th, n being
// GPUHOST_CRASH_AT, or the first whose name begins with GPUHOST_CRASH_AT, which is
// like "before isolation/start". The crash test builds its binary with this tag.
// The lab does, too, and sets GPUHOST_CRASH_HOW=power: there the whole machine ends.
func crashPoint() func(when string, step plan.Step) {
	at := os.Getenv("GPUHOST_CRASH_AT")
	if at == "" {
		return nil
	}
	end := die
	if os.Getenv("GPUHOST_CRASH_HOW") == "power" {
		end = cutPower
	}
	n, err := strconv.ParseInt(at, 10, 64)
	isNumber := err == nil
	var passed atomic.Int64
	return func(when string, step plan.Step) {
		name := when + " " + string(step.ID)
		if isNumber && passed.Add(1) != n || !isNumber && !strings.HasPrefix(name, at) {
			return
		}
		fmt.Fprintf(os.Stderr, "crash point %s: %s\n", at, name)
		end()
		select {} // whatever ends us may need a moment; do not run on until it does
	}
}

func die() { _ = syscall.Kill(os.Getpid(), syscall.SIGKILL) }

// cutPower writes to the port at which the lab's machine listens for it
// (isa-debug-exit): no disk is flushed, no process told.
func cutPower() {
	const exitPort = 0xf4
	port, err := os.OpenFile("/dev/port", os.O_WRONLY, 0)
	if err == nil {
		_, err = port.WriteAt([]byte{1}, exitPort)
	}
	fmt.Fprintln(os.Stderr, "cut the power:", err)
}
