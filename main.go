// Command gpuhost is the host agent of a GPU cloud and its command line.
package main

import (
	"context"
	"os"

	"github.com/gpuhost/gpuhost/agent"
	"github.com/gpuhost/gpuhost/agent/cli"
)

// version is set by the linker.
var version = "dev"

func main() {
	os.Exit(cli.Main(os.Args[1:], cli.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, cli.Hooks{Version: version, Agent: daemon}))
}

func daemon(ctx context.Context, o cli.AgentOptions) error {
	run := agent.Run
	if o.Remove {
		run = agent.Remove
	}
	return run(ctx, agent.Options{Config: o.Config, Root: o.Root, Sim: o.Sim, Yes: o.Yes, Environ: os.Environ(), Version: version, Log: os.Stderr})
}
