// Command driver runs in the lab's guest: it greets the lab, and runs the scripts
// that the lab sends, one at a time, as root.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gpuhost/gpuhost/packaging/lab/wire"
)

// home is root's.
const home = "/root"

// lastWords is how long the output stays open after a script's end; what runs on
// in the background must have output of its own.
const lastWords = time.Second

func main() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func serve() error {
	port, err := os.OpenFile(wire.PortFile, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer port.Close()
	answers, requests := wire.Encoder(port), wire.Decoder(port)
	greeting, err := hello()
	if err != nil {
		return err
	}
	if err := answers.Encode(wire.Event{Hello: greeting}); err != nil {
		return fmt.Errorf("greet the lab: %w", err)
	}
	for {
		var r wire.Request
		if err := requests.Decode(&r); err != nil {
			return fmt.Errorf("read request: %w", err)
		}
		exit := run(home, r, &output{r.ID, answers.Encode})
		if err := answers.Encode(wire.Event{ID: r.ID, Exit: &exit}); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
}

func hello() (*wire.Hello, error) {
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return nil, err
	}
	seconds, err := strconv.ParseFloat(strings.Fields(string(text))[0], 64)
	if err != nil {
		return nil, fmt.Errorf("read uptime: %w", err)
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return nil, err
	}
	return &wire.Hello{Kernel: strings.TrimSpace(string(kernel)), Uptime: time.Duration(seconds * float64(time.Second))}, nil
}

// output passes a script's words on. One pointer is both stdout and stderr, so that they
// share a pipe and keep their order.
type output struct {
	id   int
	send func(any) error
}

func (o *output) Write(p []byte) (int, error) {
	return len(p), o.send(wire.Event{ID: o.id, Out: p})
}

// run runs a script to its end, or kills its process group when time is up. The
// script lies in a file, so that bash can name its lines.
func run(dir string, r wire.Request, out *output) wire.Exit {
	scriptFile := filepath.Join(dir, ".step.sh")
	if err := os.WriteFile(scriptFile, []byte(r.Script), 0o700); err != nil {
		return wire.Exit{Code: -1, Reason: err.Error()}
	}
	ctx, cancel := context.WithTimeout(context.Background(), r.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "--noprofile", "--norc", scriptFile)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = lastWords
	return outcome(cmd.Run(), ctx.Err(), r.Timeout)
}

func outcome(err, late error, timeout time.Duration) wire.Exit {
	var exit *exec.ExitError
	switch {
	case late != nil:
		return wire.Exit{Code: -1, Reason: fmt.Sprintf("not done after %s", timeout)}
	case errors.Is(err, exec.ErrWaitDelay):
		return wire.Exit{Code: -1, Reason: "something that it left in the background holds its output: give it output of its own"}
	case errors.As(err, &exit):
		return wire.Exit{Code: exit.ExitCode(), Reason: ""}
	case err != nil:
		return wire.Exit{Code: -1, Reason: err.Error()}
	}
	return wire.Exit{}
}
