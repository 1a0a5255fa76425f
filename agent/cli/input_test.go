package cli_test

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gpuhost/gpuhost/agent/cli"
)

// TestBadInput runs every command line of testdata/bad-input.txt and compares
// what is said, to the letter, and the exit code. None of them may change
// anything.
func TestBadInput(t *testing.T) {
	const path = "testdata/bad-input.txt"
	backend, address := servedHost(t)
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for lines := bufio.NewScanner(strings.NewReader(string(have))); lines.Scan(); {
		command, ok := strings.CutPrefix(lines.Text(), "$ gpuhost ")
		if !ok {
			continue
		}
		var out, talk strings.Builder
		code := cli.Run(t.Context(), strings.Fields(command), cli.Stdio{In: strings.NewReader(""), Out: &out, Err: &talk},
			cli.Hooks{Getenv: environment(address)})
		if code == 0 || out.Len() > 0 {
			t.Errorf("%s: exit code %d, standard output %q", command, code, out.String())
		}
		fmt.Fprintf(&want, "$ gpuhost %s\n%sexit %d\n\n", command, talk.String(), code)
	}
	if *update {
		if err := os.WriteFile(path, []byte(want.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want.String(), string(have)); diff != "" {
		t.Errorf("-said +expected:\n%s", diff)
	}
	if changes := backend.Count(); changes != 0 {
		t.Errorf("%d changes were made", changes)
	}
}

func environment(address string) func(string) string {
	return func(name string) string {
		if name == "GPUHOST_HOST" {
			return address
		}
		return ""
	}
}
