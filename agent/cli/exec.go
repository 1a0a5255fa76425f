package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/frame"
	"github.com/gpuhost/gpuhost/agent/spec"
)

func (a *app) execCommand() *cobra.Command {
	var request api.ExecRequest
	cmd := &cobra.Command{
		Use:   "exec [-it] NAME -- COMMAND...",
		Short: "Run a command in a running instance; its exit code becomes ours",
		Example: `  gpuhost exec acme/train-1 -- nvidia-smi
  gpuhost exec -it acme/train-1 -- sh
  tar c data | gpuhost exec -i acme/train-1 -- tar x`,
		Args:              args(2, -1, "the name of an instance and a command"),
		ValidArgsFunction: a.completeNames(spec.KindInstance),
		RunE: func(cmd *cobra.Command, given []string) error {
			command := given[1:]
			if command[0] == "--" {
				command = command[1:]
			}
			if len(command) == 0 {
				return usage("exec wants a command").WithHint("gpuhost exec NAME -- COMMAND")
			}
			request.Command = command
			return a.exec(cmd.Context(), given[0], request)
		},
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false) // what follows NAME is the command's
	flags.BoolVarP(&request.Stdin, "interactive", "i", false, "pass standard input on")
	flags.BoolVarP(&request.TTY, "tty", "t", false, "give the command a terminal")
	flags.StringVar(&request.User, "user", "", "numeric UID or UID:GID (default: the instance's)")
	return cmd
}

func (a *app) consoleCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "console NAME",
		Short:             "A shell in a running instance: exec -it NAME -- /bin/sh",
		Args:              args(1, 1, "the name of an instance"),
		ValidArgsFunction: a.completeNames(spec.KindInstance),
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.exec(cmd.Context(), given[0], api.ExecRequest{Command: []string{"/bin/sh"}, TTY: true, Stdin: true})
		},
	}
}

func (a *app) exec(ctx context.Context, name string, request api.ExecRequest) error {
	ref, err := a.ref(ctx, spec.KindInstance, name)
	if err != nil {
		return err
	}
	if request.TTY {
		if !isTerminal(a.In) || !isTerminal(a.Out) {
			return usage("-t needs a terminal on standard input and output").WithHint("gpuhost exec %s -- COMMAND needs none", name)
		}
		request.Cols, request.Rows = terminalSize(a.Out)
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	stream, err := c.Exec(ctx, ref, request)
	if err != nil {
		return err
	}
	defer stream.Close()
	// Closing hangs the command up; it also ends a read in receive.
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	defer stop()
	return a.attach(ctx, ref, request, stream)
}

// attach connects our standard streams to the command's until it ends.
func (a *app) attach(ctx context.Context, ref spec.Ref, request api.ExecRequest, stream io.ReadWriter) error {
	out := frame.NewWriter(stream)
	if request.TTY {
		restore, err := a.rawTerminal(out)
		if err != nil {
			return err
		}
		defer restore()
	}
	if request.Stdin {
		// A read of a terminal cannot be interrupted: this ends with its input
		// or with the process.
		go sendInput(out, a.In)
	} else {
		_ = out.CloseStdin() // a command that has ended already does not hear it
	}
	err := receive(frame.NewReader(stream), a.Out, a.Err)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return ofConnection("exec in "+ref.String(), err)
}

// ofConnection says what was being done when the connection failed; what the
// command's side said stands as it is.
func ofConnection(what string, err error) error {
	_, code := errors.AsType[exitCode](err)
	_, told := errors.AsType[*fault.Error](err)
	if code || told {
		return err
	}
	return fault.Wrap(fault.Temporary, what, err)
}

// sendInput passes input on. Errors show as the end of the other direction.
func sendInput(out *frame.Writer, in io.Reader) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := in.Read(buffer)
		if out.Data(frame.Stdin, buffer[:n]) != nil {
			return
		}
		if err != nil {
			_ = out.CloseStdin()
			return
		}
	}
}

// errLost is a stream that ended without the command's exit.
var errLost = errors.New("the connection was lost; how the command ended is not known")

// receive prints what the command writes, until it exits.
func receive(in *frame.Reader, stdout, stderr io.Writer) error {
	for {
		f, err := in.Next()
		if err != nil {
			return errLost
		}
		switch f.Type {
		case frame.Stdout:
			_, err = stdout.Write(f.Payload)
		case frame.Stderr:
			_, err = stderr.Write(f.Payload)
		case frame.Exited:
			return exited(f)
		case frame.Failed:
			return failed(f)
		}
		if err != nil {
			return err
		}
	}
}

func exited(f frame.Frame) error {
	exit, err := f.Exit()
	switch {
	case err != nil:
		return err
	case exit.Unknown:
		return errors.New("the command ended; its exit code was lost with a restart of containerd")
	case exit.Code == 0:
		return nil
	}
	return exitCode(exit.Code)
}

func failed(f frame.Frame) error {
	why, err := f.Failure()
	if err != nil {
		return err
	}
	return &fault.Error{Kind: fault.Kind(why.Code), What: why.What, Why: why.Why, Hint: why.Hint}
}

// rawTerminal hands every key to the command and tells it our size, now and at
// each change. restore undoes both.
func (a *app) rawTerminal(out *frame.Writer) (restore func(), err error) {
	fd := int(a.In.(*os.File).Fd()) // isTerminal was asked before
	old, err := term.MakeRaw(fd)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "prepare the terminal", err)
	}
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, unix.SIGWINCH)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range resized {
			cols, rows := terminalSize(a.Out)
			_ = out.Resize(frame.Resize{Cols: cols, Rows: rows}) // a lost stream shows in receive
		}
	}()
	return func() {
		signal.Stop(resized)
		close(resized)
		<-done
		_ = term.Restore(fd, old)
	}, nil
}

// terminalSize is 0, 0 where it is not known.
func terminalSize(w io.Writer) (cols, rows uint16) {
	file, ok := w.(*os.File)
	if !ok {
		return 0, 0
	}
	width, height, err := term.GetSize(int(file.Fd()))
	if err != nil {
		return 0, 0
	}
	return uint16(width), uint16(height)
}
