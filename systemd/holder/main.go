// Holder keeps the cgroup below which tenants run. A service manager removes the
// cgroup of a unit in which no process is left, and an agent that restarts must
// find the same one; so one process of next to no size stays in it.
//
//	<unit's cgroup>          delegated: the manager touches nothing below it
//	├── holder               this process; a cgroup that gives controllers to its
//	│                        children may hold no process itself
//	├── wardens, services    the agent's own
//	└── <uid> …              the tenants' (isolation/cgroup)
//
// `holder run` is the process of gpuhost-tenants.service and `holder end` its stop
// command. A signal to the former ends no tenant: it goes only once nobody else is
// left, so that a stray kill is not the end of every customer on the host.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "holder:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return fmt.Errorf("find cgroup: %w", err)
	}
	dir, err := own(mount, string(text))
	if err != nil {
		return err
	}
	switch {
	case len(args) == 1 && args[0] == "run":
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
		return stay(dir, tellReady, signals)
	case len(args) > 0 && args[0] == "end":
		return endMain(dir, args[1:])
	}
	return errors.New("usage: holder run | end [--grace 20s]")
}

func endMain(dir string, args []string) error {
	flags := flag.NewFlagSet("holder end", flag.ExitOnError)
	grace := flags.Duration("grace", 20*time.Second, "how long processes may take to end by themselves")
	_ = flags.Parse(args) // ExitOnError
	ctx, cancel := context.WithTimeout(context.Background(), *grace)
	defer cancel()
	return end(ctx, dir)
}
