//go:build cgo

// The NVML helper answers the agent's questions about GPUs over its standard
// input and output (package nvml has the protocol). It is the only program that
// links go-nvml, and with it cgo: whatever hangs or crashes in the driver's
// library takes this process and not the agent.
//
// It ends when its standard input ends.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/gpuhost/gpuhost/agent/sim"
)

func main() {
	var o options
	flag.StringVar(&o.sim, "sim", "", "simulate a host: "+strings.Join(sim.Names(), ", "))
	flag.StringVar(&o.seed, "seed", "", "what simulated identities are made from")
	flag.StringVar(&o.faults, "faults", "", "file that says what is broken in the simulated host")
	flag.Parse()
	if err := serve(os.Stdin, os.Stdout, o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type options struct{ sim, seed, faults string }
