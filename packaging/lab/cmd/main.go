// Command cmd runs the lab's scenarios on a guest whose parts lie in one folder:
//
//	cmd [-keep] [-v] [-sample N] -lab build/lab [SCENARIO...]
//
// packaging/lab/lab.sh makes the parts and calls it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/gpuhost/gpuhost/packaging/lab/machine"
	"github.com/gpuhost/gpuhost/packaging/lab/scenario"
)

// leaveKey ends a console: Ctrl-].
const leaveKey = 0x1d

// options are the command line.
type options struct {
	lab, scenarios string
	keep, verbose  bool
	sample         int
	names          []string
}

func main() {
	var o options
	flag.StringVar(&o.lab, "lab", "build/lab", "folder with image/ and payload.img; run/ is made there")
	flag.StringVar(&o.scenarios, "scenarios", "packaging/lab/scenarios", "folder with the scenarios")
	flag.BoolVar(&o.keep, "keep", false, "give a console at the end, or after the first failure")
	flag.BoolVar(&o.verbose, "v", false, "show what the steps print, too")
	flag.IntVar(&o.sample, "sample", 0, "take only so many values of a scenario that runs once for each")
	flag.Parse()
	o.names = flag.Args()
	passed, err := run(o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
	}
	if err != nil || !passed {
		os.Exit(1)
	}
}

func run(o options) (passed bool, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	all, err := scenario.Load(o.scenarios)
	if err != nil {
		return false, err
	}
	picked, err := scenario.Select(all, o.names)
	if err != nil {
		return false, err
	}
	live, err := liveFile(o.lab)
	if err != nil {
		return false, err
	}
	defer live.Close()
	report := &scenario.Report{Out: os.Stdout, Live: live, Verbose: o.verbose}
	runner := &scenario.Runner{Report: report, Sample: o.sample, New: fresh(o.lab)}
	if o.keep {
		runner.Keep = console
	}
	begin := time.Now()
	passed = runner.Run(ctx, picked)
	report.Sums(time.Since(begin))
	return passed, nil
}

// liveFile is where one can watch a step: run/steps.log.
func liveFile(lab string) (*os.File, error) {
	dir := filepath.Join(lab, "run")
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return os.Create(filepath.Join(dir, "steps.log"))
}

// fresh makes machines that each have a folder of their own, so that the logs of
// one that failed stay.
func fresh(lab string) func() (scenario.Guest, error) {
	made := 0
	return func() (scenario.Guest, error) {
		made++
		return machine.New(machine.Spec{
			Image:   filepath.Join(lab, "image"),
			Payload: filepath.Join(lab, "payload.img"),
			Dir:     filepath.Join(lab, "run", fmt.Sprint(made)),
		})
	}
}

// console hands the guest's console to the terminal.
func console(_ context.Context, g scenario.Guest) {
	m, ok := g.(*machine.Machine)
	if !ok {
		return
	}
	fmt.Fprintln(os.Stderr, "\nThe guest's console; Ctrl-] leaves it and ends the guest. Press Enter.")
	restore := rawTerminal()
	defer restore()
	m.Console(&untilKey{os.Stdin, leaveKey}, os.Stdout)
}

// rawTerminal passes every key on; without a terminal it does nothing.
func rawTerminal() (restore func()) {
	stty := func(args ...string) error {
		cmd := exec.Command("stty", args...)
		cmd.Stdin = os.Stdin
		return cmd.Run()
	}
	if stty("raw", "-echo") != nil {
		return func() {}
	}
	return func() { _ = stty("sane") }
}
