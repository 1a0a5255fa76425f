package scenario

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const example = `# A reboot.
# More about it.
#: needs install hello
#: timeout 3m
#: each POINT before a, after b

## it runs
gpuhost status

## it reboots
echo bye
host reboot

## it is back
true
`

func TestParse(t *testing.T) {
	got, err := Parse("reboot", example)
	if err != nil {
		t.Fatal(err)
	}
	want := &Scenario{
		Name: "reboot", About: "A reboot.", Needs: []string{"install", "hello"}, Timeout: 3 * time.Minute,
		Each: Each{"POINT", []string{"before a", "after b"}},
		Steps: []Step{
			{Name: "it runs", Line: 8, Lines: []string{"gpuhost status", ""}},
			{Name: "it reboots", Line: 11, Lines: []string{"echo bye", ""}, Order: Reboot},
			{Name: "it is back", Line: 15, Lines: []string{"true", ""}},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, row := range []struct{ name, text, want string }{
		{"nothing said", "## a\ntrue\n", "no comment that says what it shows"},
		{"no step", "# about\n", "no step"},
		{"a command before the steps", "# about\ntrue\n", `line 2: "true" stands before the first step`},
		{"an unknown setting", "# about\n#: need x\n", `line 2: unknown setting "need"`},
		{"no duration", "# about\n#: timeout soon\n", "line 2: time: invalid duration"},
		{"an unknown order", "# about\n## a\nhost shutdown\n", `line 3: unknown order "shutdown"`},
		{"a line after an order", "# about\n## a\nhost cut\ntrue\n", `line 4: "true" comes after "host cut"`},
		{"two orders", "# about\n## a\nhost cut\nhost reboot\n", "line 4: a second order"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if _, err := Parse("x", row.text); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want %q", err, row.want)
			}
		})
	}
}

// A script's lines keep their numbers.
func TestScript(t *testing.T) {
	s, err := Parse("x", "# about\n\n## a\nfalse\n")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("prelude\n\n\nfalse\n\n", s.Steps[0].Script("prelude")); diff != "" {
		t.Error(diff)
	}
}

func TestSelect(t *testing.T) {
	named := func(name string, needs ...string) *Scenario { return &Scenario{Name: name, Needs: needs} }
	all := []*Scenario{named("crash", "install"), named("install"), named("purge", "install"), named("round", "trip"), named("trip", "round")}
	for _, row := range []struct{ ask, want, err string }{
		{ask: "crash", want: "install crash"},
		{ask: "purge crash install", want: "install purge crash"},
		{ask: "nothing", err: `no scenario "nothing"`},
		{ask: "round", err: "scenario round needs itself: round needs trip"},
	} {
		picked, err := Select(all, strings.Fields(row.ask))
		var names []string
		for _, s := range picked {
			names = append(names, s.Name)
		}
		switch got := strings.Join(names, " "); {
		case row.err != "" && (err == nil || err.Error() != row.err):
			t.Errorf("%s: error %v, want %q", row.ask, err, row.err)
		case row.err == "" && (err != nil || got != row.want):
			t.Errorf("%s: %q, %v; want %q", row.ask, got, err, row.want)
		}
	}
}

// Every scenario of the lab can be read, and has what it needs.
func TestTheLabsOwn(t *testing.T) {
	all, err := Load("../scenarios")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Select(all, nil); err != nil {
		t.Error(err)
	}
}
