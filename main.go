// Command gpuhost is the host agent of a GPU cloud and its command line.
package main

import (
	"os"

	"github.com/gpuhost/gpuhost/agent/cli"
)

// version is set by the linker.
var version = "dev"

func main() {
	stdio := cli.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	os.Exit(cli.Main(os.Args[1:], stdio, cli.Hooks{Version: version}))
}
