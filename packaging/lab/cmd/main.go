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

func main() {
	lab := flag.String("lab", "build/lab", "folder with image/ and payload.img; run/ is made there")
	scenarios := flag.String("scenarios", "packaging/lab/scenarios", "folder with the scenarios")
	keep := flag.Bool("keep", false, "give a console at the end, or after the first failure")
	verbose := flag.Bool("v", false, "show what the steps print, too")
	sample := flag.Int("sample", 0, "take only so many values of a scenario that runs once for each")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	report := &scenario.Report{Out: os.Stdout, Verbose: *verbose}
	runner := &scenario.Runner{Report: report, Sample: *sample, New: fresh(*lab)}
	if *keep {
		runner.Keep = console
	}
	ok, err := run(ctx, runner, *scenarios, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
	}
	if err != nil || !ok {
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, runner *scenario.Runner, dir string, names []string) (bool, error) {
	all, err := scenario.Load(dir)
	if err != nil {
		return false, err
	}
	picked, err := scenario.Select(all, names)
	if err != nil {
		return false, err
	}
	begin := time.Now()
	ok := runner.Run(ctx, picked)
	runner.Report.Sums(time.Since(begin))
	return ok, nil
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
