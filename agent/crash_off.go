//go:build !crashtest

package agent

import "github.com/gpuhost/gpuhost/agent/plan"

// crashPoint is nil in every binary that is not built for the crash test.
func crashPoint() func(when string, step plan.Step) { return nil }
