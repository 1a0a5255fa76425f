// Warden is the small process that outlives the agent: it reads what a tenant
// writes, so that a killed or upgraded agent never stops a tenant.
//
//	warden log     keeps the log of one task
//	warden exec    relays one exec session
//	warden canary  tries to open device nodes in cgroups and says what the kernel answered
//	warden services  becomes warden-services, which is a program of its own
//
// Fifty of them must cost next to nothing: package net and what needs it stay
// out (deps_test.go), and DNS lives in isolation/warden/services/daemon.
package main

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/isolation/warden/canary/probe"
	"github.com/gpuhost/gpuhost/isolation/warden/confine"
	"github.com/gpuhost/gpuhost/isolation/warden/relay"
	"github.com/gpuhost/gpuhost/isolation/warden/tasklog"
)

const usage = "usage: warden log|exec|canary|services [flags]; -h after one shows its flags\n"

func main() { os.Exit(run(os.Args)) }

func run(args []string) int {
	if len(args) < 2 {
		os.Stderr.WriteString(usage)
		return 2
	}
	switch args[1] {
	case "log":
		return logMain(args[2:])
	case "exec":
		return execMain(args[2:])
	case "canary":
		return canaryMain(args[2:])
	case "services":
		return servicesMain(args)
	}
	os.Stderr.WriteString(usage)
	return 2
}

func logMain(args []string) int {
	flags := flag.NewFlagSet("warden log", flag.ExitOnError)
	var o tasklog.Options
	flags.StringVar(&o.Pipes, "pipes", "", "`folder` of the FIFOs stdout and stderr")
	flags.StringVar(&o.Logs, "logs", "", "`folder` of the log")
	common := commonFlags(flags, &o.UID, &o.GID)
	if err := common.begin(args); err != nil {
		return common.end(err)
	}
	err := tasklog.Run(o, common.ready)
	if errors.Is(err, tasklog.ErrLocked) {
		err = nil // the work is being done
	}
	return common.end(err)
}

func execMain(args []string) int {
	flags := flag.NewFlagSet("warden exec", flag.ExitOnError)
	var o relay.Options
	flags.StringVar(&o.Dir, "dir", "", "the session's `folder`, which is made")
	flags.BoolVar(&o.Stdin, "stdin", false, "the process has an input")
	flags.BoolVar(&o.TTY, "tty", false, "the process has a terminal")
	flags.DurationVar(&o.Patience, "patience", time.Minute, "how long process and controller have to come")
	common := commonFlags(flags, &o.UID, &o.GID)
	if err := common.begin(args); err != nil {
		return common.end(err)
	}
	return common.end(relay.Run(o, common.ready))
}

func canaryMain(args []string) int {
	_ = flag.NewFlagSet("warden canary", flag.ExitOnError).Parse(args)
	if err := probe.Run(os.Stdin, os.Stdout); err != nil {
		return complain(err)
	}
	return 0
}

// servicesMain becomes the program beside this one, which carries what DNS needs.
func servicesMain(args []string) int {
	self, err := os.Executable()
	if err != nil {
		return complain(err)
	}
	program := filepath.Join(filepath.Dir(self), "warden-services")
	err = unix.Exec(program, append([]string{program}, args[2:]...), os.Environ())
	return complain(&os.PathError{Op: "run", Path: program, Err: err})
}

// common is what a process started by the agent does: it reports on a pipe when
// it is ready, or why it is not.
type common struct {
	flags *flag.FlagSet
	fd    int
}

func commonFlags(flags *flag.FlagSet, uid, gid *int) *common {
	c := &common{flags: flags}
	flags.IntVar(uid, "uid", 0, "user to become")
	flags.IntVar(gid, "gid", 0, "group to become")
	flags.IntVar(&c.fd, "ready-fd", -1, "open descriptor to report on")
	return c
}

// begin reads the flags and lets go of all that the starter left open.
func (c *common) begin(args []string) error {
	_ = c.flags.Parse(args) // ExitOnError
	return confine.CloseInherited(c.fd)
}

// ready tells the starter that it need not wait any longer.
func (c *common) ready() { c.report("ready\n") }

// end gives the exit code, telling a starter that still waits what happened.
func (c *common) end(err error) int {
	if err == nil {
		c.ready()
		return 0
	}
	c.report(err.Error())
	return complain(err)
}

func (c *common) report(text string) {
	if c.fd < 0 {
		return
	}
	_, _ = unix.Write(c.fd, []byte(text)) // the starter may be gone
	unix.Close(c.fd)
	c.fd = -1
}

func complain(err error) int {
	os.Stderr.WriteString("warden: " + err.Error() + "\n")
	return 1
}
