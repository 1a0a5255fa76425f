// Package cli is the command line: one file a command, all of them speaking to
// the agent through agent/client and to the person through the few functions
// of output.go, progress.go and confirm.go.
//
// Data goes to standard output and talk to standard error. Exit codes are those
// of package fault.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/client"
	"github.com/gpuhost/gpuhost/agent/fault"
)

// exitInterrupted is the shells' convention for a command that Ctrl-C ended.
// The work it started goes on.
const exitInterrupted = 130

// Stdio is where a command reads and writes. Files that are terminals get
// colour, progress bars and questions.
type Stdio struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
}

// AgentOptions are the flags of "gpuhost agent".
type AgentOptions struct {
	Config string // the settings file
	Root   string // everything below this folder, for tests
	Sim    string // the simulated machine
	Remove bool   // do not run: take the agent off the host
	Yes    bool   // and end the instances that are stored
}

// Hooks are what the wiring gives to the command line.
type Hooks struct {
	Version string
	// Agent runs the daemon until the context ends.
	Agent func(ctx context.Context, options AgentOptions) error
	// Getenv reads the environment; nil is os.Getenv.
	Getenv func(string) string
}

// app is one run of the command line.
type app struct {
	Stdio
	hooks Hooks

	// Global flags.
	host   string
	root   string
	tenant string
	output string
	noWait bool
	yes    bool

	started bool // a command's own code was reached: its errors are no usage errors
	client  *client.Client
}

// Main runs one command line and returns its exit code.
func Main(args []string, stdio Stdio, hooks Hooks) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	return Run(ctx, args, stdio, hooks)
}

// Run is Main under a context of the caller's.
func Run(ctx context.Context, args []string, stdio Stdio, hooks Hooks) int {
	if hooks.Getenv == nil {
		hooks.Getenv = os.Getenv
	}
	a := &app{Stdio: stdio, hooks: hooks}
	root := a.command()
	root.SetArgs(args)
	root.SetIn(stdio.In)
	root.SetOut(stdio.Out)
	root.SetErr(stdio.Err)
	err := root.ExecuteContext(ctx)
	if a.client != nil {
		a.client.Close()
	}
	return a.exit(err)
}

// exitCode is an error that has been told already.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// verdict is an error that means "not as wanted": exit code 3 whatever its kind.
type verdict struct{ error }

func (v verdict) Unwrap() error { return v.error }

func notConverged(err error) error { return verdict{err} }

// exit tells the error and gives its code.
func (a *app) exit(err error) int {
	if err == nil {
		return fault.ExitOK
	}
	if code, ok := errors.AsType[exitCode](err); ok {
		return int(code)
	}
	if _, known := errors.AsType[*fault.Error](err); !known && !a.started { // cobra's own
		err = usage("%s", err)
	}
	if errors.Is(err, context.Canceled) {
		return exitInterrupted
	}
	a.tell(err)
	switch _, open := errors.AsType[verdict](err); {
	case open:
		return fault.ExitNotConverged
	case errors.Is(err, client.ErrUnreachable):
		return fault.ExitUnreachable
	case errors.Is(err, context.DeadlineExceeded):
		return fault.ExitTimeout
	}
	return fault.KindOf(err).Exit()
}

// tell writes "error: what: why" and the hint. Texts may hold what a tenant
// wrote: nothing in them reaches the terminal raw.
func (a *app) tell(err error) {
	p := a.painter(a.Err)
	fmt.Fprintf(a.Err, "%s %s\n", p.paint(red, "error:"), printableLines(err.Error()))
	if hint := fault.HintOf(err); hint != "" {
		fmt.Fprintf(a.Err, "%s %s\n", p.paint(cyan, "hint:"), printableLines(hint))
	}
}

// say is talk for the person; it never mixes with data.
func (a *app) say(format string, args ...any) { fmt.Fprintf(a.Err, format+"\n", args...) }

func usage(format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, "usage", format, args...).WithHint("gpuhost help")
}

func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:               "gpuhost",
		Short:             "Rent out the GPUs of this host, isolated from each other",
		SilenceErrors:     true,
		SilenceUsage:      true,
		Args:              cobra.NoArgs,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(*cobra.Command, []string) error { a.started = true; return a.checkOutput() },
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.host, "host", "", "the agent's address, unix:///PATH (or GPUHOST_HOST)")
	flags.StringVar(&a.root, "root", "", "everything of the agent below DIR; finds its socket there")
	flags.StringVar(&a.tenant, "tenant", "", "the tenant of names without one")
	flags.StringVarP(&a.output, "output", "o", "", "table, wide, json, yaml or name")
	flags.BoolVar(&a.noWait, "no-wait", false, "print the change id instead of waiting for the work")
	flags.BoolVar(&a.yes, "yes", false, "do not ask")
	a.group(root, "Instances:", append(a.verbCommands(),
		a.runCommand(), a.rmCommand(), a.logsCommand(), a.execCommand(), a.consoleCommand(), a.imageCommand())...)
	a.group(root, "Desired state:", a.applyCommand(), a.planCommand(), a.verifyCommand(), a.exportCommand(),
		a.getCommand(), a.describeCommand(), a.deleteCommand())
	a.group(root, "The host:", a.gpuCommand(), a.auditCommand(), a.statusCommand(), a.eventsCommand(), a.changesCommand(),
		a.waitCommand(), a.doctorCommand(), a.configCommand(), a.agentCommand(), a.simCommand(), a.versionCommand())
	a.addUnbuilt(root)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%s", err).WithHint("%s --help", cmd.CommandPath())
	})
	_ = root.RegisterFlagCompletionFunc("tenant", a.completeTenants)
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats(), cobra.ShellCompDirectiveNoFileComp))
	return root
}

func (a *app) group(root *cobra.Command, title string, commands ...*cobra.Command) {
	id := strings.ToLower(strings.Fields(title)[0])
	root.AddGroup(&cobra.Group{ID: id, Title: title})
	for _, c := range commands {
		c.GroupID = id
		root.AddCommand(c)
	}
}

// args checks the number of positional arguments with a message that says what
// is wanted. A negative most is unbounded.
func args(least, most int, want string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if len(given) >= least && (most < 0 || len(given) <= most) {
			return nil
		}
		return fault.New(fault.Invalid, cmd.CommandPath(), "wants %s", want).WithHint("%s --help", cmd.CommandPath())
	}
}
