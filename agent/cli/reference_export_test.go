package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// WriteReference writes docs/reference/commands.md from the commands
// themselves; a test keeps the file true.
func WriteReference(w io.Writer) error {
	a := &app{Stdio: Stdio{Out: io.Discard, Err: io.Discard}}
	root := a.command()
	root.InitDefaultCompletionCmd()
	var out strings.Builder
	out.WriteString(referenceHead)
	section(&out, "Global flags", root.PersistentFlags())
	for _, cmd := range root.Commands() {
		reference(&out, cmd)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

const referenceHead = `# Commands

Made from the commands themselves by ` + "`go test ./agent/cli -run TestReference -update`" + `; do not edit.

NAME is ` + "`name`" + ` with ` + "`--tenant`" + `, or ` + "`tenant/name`" + `. Without either it is the caller's own tenant, for operators ` + "`default`" + `.
Data goes to standard output, everything said to the person to standard error.

| exit code | means |
|---|---|
| 0 | done |
| 1 | failed |
| 2 | usage, or input that is wrong or not supported |
| 3 | not converged, degraded, or would change |
| 4 | no such object |
| 5 | no agent answers |
| 6 | permission |
| 7 | busy, conflict, or exhausted |
| 8 | timed out |
| 130 | interrupted; the work goes on |

` + "`exec`" + ` and ` + "`console`" + ` end with the command's own code.
`

func reference(out *strings.Builder, cmd *cobra.Command) {
	if cmd.Hidden || cmd.Name() == "help" {
		return
	}
	if cmd.Name() == "completion" { // its parts are the shells
		fmt.Fprintf(out, "\n## %s bash|zsh|fish|powershell\n\n%s.\n", cmd.CommandPath(), cmd.Short)
		return
	}
	if cmd.HasSubCommands() {
		for _, sub := range cmd.Commands() {
			reference(out, sub)
		}
		return
	}
	fmt.Fprintf(out, "\n## %s\n\n", strings.TrimSuffix(cmd.UseLine(), " [flags]"))
	text := cmd.Long
	if text == "" {
		text = cmd.Short + "."
	}
	out.WriteString(text + "\n")
	if cmd.Example != "" {
		fmt.Fprintf(out, "\n```\n%s\n```\n", dedent(cmd.Example))
	}
	flags(out, cmd.LocalNonPersistentFlags())
}

func dedent(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimPrefix(line, "  ")
	}
	return strings.Join(lines, "\n")
}

func section(out *strings.Builder, title string, set *pflag.FlagSet) {
	fmt.Fprintf(out, "\n## %s\n", title)
	flags(out, set)
}

func flags(out *strings.Builder, set *pflag.FlagSet) {
	var rows []string
	set.VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" || f.Hidden {
			return
		}
		name := "`--" + f.Name + "`"
		if f.Shorthand != "" {
			name = "`-" + f.Shorthand + "`, " + name
		}
		rows = append(rows, fmt.Sprintf("| %s | %s |\n", name, strings.ReplaceAll(f.Usage, "|", "\\|")))
	})
	if len(rows) > 0 {
		out.WriteString("\n| flag | |\n|---|---|\n" + strings.Join(rows, ""))
	}
}
