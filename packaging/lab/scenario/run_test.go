package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gpuhost/gpuhost/packaging/lab/machine"
	"github.com/gpuhost/gpuhost/packaging/lab/wire"
)

// fakeGuest obeys what a script's last line says, and writes down what happened
// to it.
type fakeGuest struct {
	t       *testing.T
	name    string
	history *[]string
	journal string
	on      bool
	last    error // what WaitDown answers
}

func (g *fakeGuest) note(what string) { *g.history = append(*g.history, g.name+" "+what) }

func (g *fakeGuest) Journal() string { return g.journal }

func (g *fakeGuest) Boot(context.Context) (*wire.Hello, error) {
	if g.on {
		g.t.Error("booted twice")
	}
	g.on = true
	g.note("boots")
	return &wire.Hello{}, nil
}

func (g *fakeGuest) Cut() {
	if g.on {
		g.note("is cut")
	}
	g.on = false
}

func (g *fakeGuest) WaitDown(context.Context) error { g.on = false; return g.last }

func (g *fakeGuest) Run(_ context.Context, script string, _ time.Duration, out io.Writer) (wire.Exit, error) {
	lines := strings.Split(strings.TrimSpace(script), "\n")
	line := strings.TrimSpace(lines[len(lines)-1])
	g.note(line)
	fmt.Fprintln(out, "output of "+line)
	switch line {
	case "systemctl reboot":
		g.on = false
		return wire.Exit{}, &machine.Down{}
	case "false":
		return wire.Exit{Code: 1}, os.WriteFile(g.journal, []byte("before\nmeanwhile\n"), 0o644)
	case "hang":
		return wire.Exit{}, errors.New("the guest does not answer")
	case "cut later":
		g.last = &machine.Down{PowerCut: true}
	case "cut":
		g.on = false
		return wire.Exit{}, &machine.Down{PowerCut: true}
	case "panic":
		g.on = false
		return wire.Exit{}, &machine.Down{Panic: "Kernel panic"}
	}
	return wire.Exit{}, nil
}

// runText runs scenarios given as name and steps and returns what happened, and
// the report.
func runText(t *testing.T, want bool, scenarios ...*Scenario) (history []string, report string) {
	t.Helper()
	var out bytes.Buffer
	made := 0
	r := &Runner{
		Report: &Report{Out: &out, Live: io.Discard},
		New: func() (Guest, error) {
			made++
			journal := filepath.Join(t.TempDir(), "journal")
			if err := os.WriteFile(journal, []byte("before\n"), 0o644); err != nil {
				return nil, err
			}
			return &fakeGuest{t: t, name: fmt.Sprintf("guest%d", made), history: &history, journal: journal}, nil
		},
	}
	if got := r.Run(t.Context(), scenarios); got != want {
		t.Errorf("passed: %t, want %t\n%s", got, want, out.String())
	}
	return history, out.String()
}

func parse(t *testing.T, name, text string) *Scenario {
	t.Helper()
	s, err := Parse(name, "# about "+name+"\n"+text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRun(t *testing.T) {
	install := parse(t, "install", "## a\ninstall\n")
	for _, row := range []struct {
		name      string
		scenarios []*Scenario
		pass      bool
		want      string
	}{
		{"one boot for all", []*Scenario{install, parse(t, "x", "#: needs install\n## a\none\n## b\ntwo\n")}, true,
			"guest1 boots, guest1 install, guest1 one, guest1 two, guest1 is cut"},
		{"a failure takes the machine along", []*Scenario{install, parse(t, "x", "#: needs install\n## a\nfalse\n## b\nnever\n"), parse(t, "y", "#: needs install\n## a\nyes\n")}, false,
			"guest1 boots, guest1 install, guest1 false, guest1 is cut, guest2 boots, guest2 install, guest2 yes, guest2 is cut"},
		{"what needs a failed one is not run", []*Scenario{parse(t, "install", "## a\nfalse\n"), parse(t, "x", "#: needs install\n## a\nnever\n")}, false,
			"guest1 boots, guest1 false, guest1 is cut"},
		{"a reboot", []*Scenario{parse(t, "x", "## a\none\nhost reboot\n## b\ntwo\n")}, true,
			"guest1 boots, guest1 one, guest1 systemctl reboot, guest1 boots, guest1 two, guest1 is cut"},
		{"a power cut", []*Scenario{parse(t, "x", "## a\none\nhost cut\n## b\ntwo\n")}, true,
			"guest1 boots, guest1 one, guest1 is cut, guest1 boots, guest1 two, guest1 is cut"},
		{"a cut in the middle", []*Scenario{parse(t, "x", "## a\ncut\nhost await-cut\n## b\ntwo\n")}, true,
			"guest1 boots, guest1 cut, guest1 boots, guest1 two, guest1 is cut"},
		{"a cut that comes later", []*Scenario{parse(t, "x", "## a\ncut later\nhost await-cut\n## b\ntwo\n")}, true,
			"guest1 boots, guest1 cut later, guest1 boots, guest1 two, guest1 is cut"},
		{"a panic is no cut", []*Scenario{parse(t, "x", "## a\npanic\nhost await-cut\n")}, false,
			"guest1 boots, guest1 panic"},
		{"once for each value", []*Scenario{parse(t, "x", "#: each P one, two\n## a\necho\n")}, true,
			"guest1 boots, guest1 echo, guest1 echo, guest1 is cut"},
	} {
		t.Run(row.name, func(t *testing.T) {
			history, _ := runText(t, row.pass, row.scenarios...)
			if diff := cmp.Diff(row.want, strings.Join(history, ", ")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A failure shows what the step printed and what the journal said meanwhile.
func TestReport(t *testing.T) {
	_, report := runText(t, false, parse(t, "x", "## it works\ntrue\n## it fails\nfalse\n"))
	for _, want := range []string{"== x: about x", "it works", "it fails", "FAILED after", "exit status 1", "| output of false", "| meanwhile"} {
		if !strings.Contains(report, want) {
			t.Errorf("the report has no %q", want)
		}
	}
	for _, unwanted := range []string{"| before", "output of true"} {
		if strings.Contains(report, unwanted) {
			t.Errorf("the report has %q", unwanted)
		}
	}
	if t.Failed() {
		t.Log(report)
	}
}

// The values of Each reach the script.
func TestPrelude(t *testing.T) {
	s := &Scenario{Each: Each{"POINT", []string{"after x"}}}
	if got := prelude(s, "after x", 3); !strings.Contains(got, "slow=3; ") || !strings.Contains(got, "POINT='after x'; ") || strings.Contains(got, "\n") {
		t.Errorf("prelude %q", got)
	}
}

// A sample is spread over all values.
func TestSample(t *testing.T) {
	s := &Scenario{Each: Each{"P", []string{"1", "2", "3", "4", "5"}}}
	for sample, want := range map[int]string{0: "1 2 3 4 5", 1: "1", 2: "1 3", 5: "1 2 3 4 5", 9: "1 2 3 4 5"} {
		if got := strings.Join(s.values(sample), " "); got != want {
			t.Errorf("%d of them: %s, want %s", sample, got, want)
		}
	}
}
