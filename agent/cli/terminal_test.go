package cli_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/api/apitest"
	"github.com/gpuhost/gpuhost/agent/cli"
)

// terminal is a pseudo-terminal: a person's side and the program's.
type terminal struct {
	person, program *os.File
	written         chan string // piece by piece
	screen          chan string // all that was written, once both sides are closed
}

func newTerminal(t *testing.T) *terminal {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	program, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	size := &unix.Winsize{Col: 90, Row: 30}
	if err := unix.IoctlSetWinsize(int(program.Fd()), unix.TIOCSWINSZ, size); err != nil {
		t.Fatal(err)
	}
	term := &terminal{person: person, program: program, written: make(chan string, 100), screen: make(chan string, 1)}
	go term.watch()
	return term
}

// watch reads until the last program closed its side, which a pty tells with EIO.
func (p *terminal) watch() {
	var all strings.Builder
	buffer := make([]byte, 4096)
	for {
		n, err := p.person.Read(buffer)
		all.Write(buffer[:n])
		select {
		case p.written <- string(buffer[:n]):
		default: // nobody looks
		}
		if err != nil {
			p.screen <- all.String()
			return
		}
	}
}

// sees waits until a text was written.
func (p *terminal) sees(text string) {
	for all := ""; !strings.Contains(all, text); {
		all += <-p.written
	}
}

func (p *terminal) types(t *testing.T, text string) {
	t.Helper()
	if _, err := p.person.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// run runs one command line on the terminal and gives what was to be seen.
func (p *terminal) run(t *testing.T, address string, args ...string) (screen string, code int) {
	t.Helper()
	code = cli.Run(t.Context(), append([]string{"--host", address}, args...), cli.Stdio{In: p.program, Out: p.program, Err: p.program},
		cli.Hooks{Getenv: func(string) string { return "" }})
	if err := p.program.Close(); err != nil {
		t.Error(err)
	}
	screen = <-p.screen
	p.person.Close()
	return screen, code
}

func servedHost(t *testing.T) (*apitest.Backend, string) {
	t.Helper()
	backend := host()
	address, stop, err := apitest.Serve(backend, api.Options{Peers: api.Peers{OperatorGroups: []uint32{uint32(os.Getegid())}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return backend, address
}

func TestQuestion(t *testing.T) {
	for _, row := range []struct {
		answer, want string
		code         int
	}{
		{"n\n", "nothing was changed", 1},
		{"\n", "nothing was changed", 1},
		{"y\n", "isolation/stop instance acme/train-1", 0},
	} {
		_, address := servedHost(t)
		term := newTerminal(t)
		term.types(t, row.answer)
		screen, code := term.run(t, address, "stop", "acme/train-1")
		const question = "stop instance acme/train-1: its processes are stopped. Go on? [y/N]"
		if code != row.code || !strings.Contains(screen, question) || !strings.Contains(screen, row.want) {
			t.Errorf("answer %q: code %d, screen %q", row.answer, code, screen)
		}
	}
}

// What a person agreed to delete is what goes, and nothing that came since.
func TestWhatIsNewerThanTheQuestionStays(t *testing.T) {
	for _, command := range [][]string{{"rm", "acme/train-1"}, {"delete", "instance", "acme/train-1"}} {
		backend, address := servedHost(t)
		term := newTerminal(t)
		go func() {
			term.sees("[y/N]")
			newer := running("acme", "train-1")
			newer.Metadata.Generation++
			backend.Put(newer)
			term.types(t, "y\n")
		}()
		screen, code := term.run(t, address, command...)
		if code != 7 || !strings.Contains(screen, "another writer was faster") {
			t.Errorf("%v: code %d, screen %q", command, code, screen)
		}
	}
}

func TestCtrlCEndsAQuestion(t *testing.T) {
	_, address := servedHost(t)
	term := newTerminal(t)
	ctx, interrupt := context.WithCancel(t.Context())
	go func() {
		term.sees("[y/N]")
		interrupt()
	}()
	code := cli.Run(ctx, []string{"--host", address, "stop", "acme/train-1"}, cli.Stdio{In: term.program, Out: term.program, Err: term.program},
		cli.Hooks{Getenv: func(string) string { return "" }})
	if code != 130 {
		t.Errorf("exit code %d, want 130", code)
	}
	term.types(t, "\n") // ends the read that nobody waits for
	if err := term.program.Close(); err != nil {
		t.Error(err)
	}
	<-term.screen
	term.person.Close()
}

func TestCtrlCEndsAReadOfStandardInput(t *testing.T) {
	_, address := servedHost(t)
	for _, command := range []string{"apply", "plan", "delete"} {
		reader, writer := io.Pipe()
		ctx, interrupt := context.WithCancel(t.Context())
		go func() {
			_, _ = io.WriteString(writer, "kind: Network\n") // returns once it is read
			interrupt()
		}()
		code := cli.Run(ctx, []string{"--host", address, command, "-f", "-"}, cli.Stdio{In: reader, Out: io.Discard, Err: io.Discard},
			cli.Hooks{Getenv: func(string) string { return "" }})
		if code != 130 {
			t.Errorf("%s: exit code %d, want 130", command, code)
		}
		writer.Close()
	}
}

func TestColourAndBar(t *testing.T) {
	backend, address := servedHost(t)
	screen, _ := newTerminal(t).run(t, address, "get", "instances")
	if !strings.Contains(screen, "\x1b[32mRunning\x1b[0m") {
		t.Errorf("no colour: %q", screen)
	}
	backend.Hold(true)
	released := make(chan error, 1)
	go func() {
		defer backend.Hold(false)
		released <- backend.Followed(context.Background(), "c1")
	}()
	screen, code := newTerminal(t).run(t, address, "start", "acme/train-1")
	if err := <-released; err != nil {
		t.Fatal(err)
	}
	if code != 0 || !strings.Contains(screen, "isolation/start instance acme/train-1") {
		t.Errorf("code %d, screen %q", code, screen)
	}
}

func TestRawTerminal(t *testing.T) {
	_, address := servedHost(t)
	term := newTerminal(t)
	before, err := unix.IoctlGetTermios(int(term.program.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	inner, err := os.OpenFile(term.program.Name(), os.O_RDWR|unix.O_NOCTTY, 0) // to look after run closed its own
	if err != nil {
		t.Fatal(err)
	}
	code := cli.Run(t.Context(), []string{"--host", address, "exec", "-t", "acme/train-1", "size"},
		cli.Stdio{In: term.program, Out: term.program, Err: term.program}, cli.Hooks{Getenv: func(string) string { return "" }})
	after, err := unix.IoctlGetTermios(int(inner.Fd()), unix.TCGETS)
	if err != nil || *after != *before {
		t.Errorf("the terminal stays as it was not: %v", err)
	}
	if err := errors.Join(term.program.Close(), inner.Close()); err != nil {
		t.Error(err)
	}
	if screen := <-term.screen; code != 0 || !strings.Contains(screen, "90x30") {
		t.Errorf("code %d, screen %q", code, screen)
	}
	term.person.Close()
}

// TestNothingReachesTheTerminalRaw: a tenant's text cannot steer the operator's terminal.
func TestNothingReachesTheTerminalRaw(t *testing.T) {
	backend, address := servedHost(t)
	const evil = "\x1b]0;owned\x07\x9b31m\r"
	backend.AddEvent(api.Event{Reason: evil, Message: evil})
	backend.AddChange(api.Change{ID: "cX", Error: evil, Hint: evil, Actor: evil, State: api.ChangeFailed, Steps: []api.ChangeStep{{ID: evil, Title: evil, Why: evil, Error: evil}}})
	backend.AddImage(api.Image{Tenant: evil, Name: evil, UsedBy: []string{evil}, Digest: evil})
	backend.Machine.Hostname = evil
	for _, args := range [][]string{{"events"}, {"changes"}, {"changes", "cX"}, {"changes", "-f", "cX"}, {"image", "list"}, {"image", "list", "-o", "name"}, {"status"}} {
		var out, talk strings.Builder
		cli.Run(t.Context(), append([]string{"--host", address}, args...), cli.Stdio{In: strings.NewReader(""), Out: &out, Err: &talk},
			cli.Hooks{Getenv: func(string) string { return "" }})
		if strings.ContainsAny(out.String()+talk.String(), "\x1b\x07\r") {
			t.Errorf("%v: %q %q", args, out.String(), talk.String())
		}
	}
}
