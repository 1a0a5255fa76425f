package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// The output formats.
const (
	formatTable = "table"
	formatWide  = "wide"
	formatJSON  = "json"
	formatYAML  = "yaml"
	formatName  = "name"
)

func formats() []string {
	return []string{formatTable, formatWide, formatJSON, formatYAML, formatName}
}

func (a *app) checkOutput() error {
	if a.output == "" || slices.Contains(formats(), a.output) {
		return nil
	}
	return usage("output %q is unknown", a.output).WithHint("known: %s", strings.Join(formats(), ", "))
}

// structured says whether the output is for a program.
func (a *app) structured() bool { return a.output == formatJSON || a.output == formatYAML }

// wide says whether the table may be wider than a terminal.
func (a *app) wide() bool { return a.output == formatWide }

// show prints a value as JSON or YAML where that is asked for; otherwise names
// or the table, both made only when needed.
func (a *app) show(value any, names func() []string, table func() *table) error {
	switch a.output {
	case formatJSON:
		return a.showJSON(value)
	case formatYAML:
		return a.showYAML(value)
	case formatName:
		for _, name := range names() {
			fmt.Fprintln(a.Out, printable(name))
		}
		return nil
	}
	table().write(a.Out, a.painter(a.Out))
	return nil
}

func (a *app) showJSON(value any) error {
	encoder := json.NewEncoder(a.Out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return fault.Wrap(fault.Internal, "write JSON", encoder.Encode(value))
}

func (a *app) showYAML(value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return fault.Wrap(fault.Internal, "write YAML", err)
	}
	yaml, err := spec.YAML(text)
	if err != nil {
		return err
	}
	_, err = a.Out.Write(yaml)
	return fault.Wrap(fault.Internal, "write YAML", err)
}

// table is columns of cells under a head.
type table struct {
	head   []string
	rows   [][]cell
	widths []int // of the columns at least; what was written is kept here
}

// cell is a text with a colour.
type cell struct {
	text   string
	colour colour
}

func newTable(head ...string) *table { return &table{head: head} }

// add appends a row; what is no cell is printed as it is.
func (t *table) add(values ...any) {
	row := make([]cell, len(values))
	for i, v := range values {
		c, ok := v.(cell)
		if !ok {
			c = cell{text: fmt.Sprint(v)}
		}
		c.text = printable(c.text)
		if c.text == "" {
			c.text = "-"
		}
		row[i] = c
	}
	t.rows = append(t.rows, row)
}

// write aligns the columns. Colours have no width, so they are laid on last.
func (t *table) write(w io.Writer, p painter) {
	head := make([]cell, len(t.head))
	for i, title := range t.head {
		head[i] = cell{text: printable(title), colour: bold}
	}
	t.writeRows(w, p, append([][]cell{head}, t.rows...))
}

// writeRows writes rows without the head.
func (t *table) writeRows(w io.Writer, p painter, rows [][]cell) {
	for len(t.widths) < len(t.head) {
		t.widths = append(t.widths, 0)
	}
	for _, row := range rows {
		for i, c := range row {
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(c.text))
		}
	}
	var out bytes.Buffer
	for _, row := range rows {
		writeRow(&out, row, t.widths, p)
	}
	_, _ = w.Write(out.Bytes())
}

func writeRow(out *bytes.Buffer, row []cell, widths []int, p painter) {
	for i, c := range row {
		out.WriteString(p.paint(c.colour, c.text))
		if i < len(row)-1 {
			out.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)+3))
		}
	}
	out.WriteByte('\n')
}

// colour is an SGR number.
type colour int

const (
	plain  colour = 0
	bold   colour = 1
	red    colour = 31
	green  colour = 32
	yellow colour = 33
	cyan   colour = 36
)

// painter colours text, or does not.
type painter bool

func (a *app) painter(w io.Writer) painter {
	return painter(isTerminal(w) && a.hooks.Getenv("NO_COLOR") == "" && a.hooks.Getenv("TERM") != "dumb")
}

func (p painter) paint(c colour, text string) string {
	if !p || c == plain {
		return text
	}
	return "\x1b[" + strconv.Itoa(int(c)) + "m" + text + "\x1b[0m"
}

// isTerminal says whether a reader or writer is a terminal.
func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// printable shows control characters as escapes: names, images and messages may
// come from a tenant, and a terminal obeys what it is sent.
func printable(text string) string { return escape(text, func(r rune) bool { return false }) }

// printableLines is printable that keeps line ends.
func printableLines(text string) string {
	return escape(text, func(r rune) bool { return r == '\n' })
}

func escape(text string, keep func(rune) bool) string {
	var out strings.Builder
	for _, r := range text {
		if unicode.IsPrint(r) || keep(r) {
			out.WriteRune(r)
			continue
		}
		out.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
	}
	return out.String()
}

func quoted(text string) string { return strconv.Quote(text) }

// age is a duration in its largest unit, as tables show it.
func age(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 2*time.Minute:
		return strconv.Itoa(int(d.Seconds())) + "s"
	case d < 2*time.Hour:
		return strconv.Itoa(int(d.Minutes())) + "m"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d.Hours())) + "h"
	}
	return strconv.Itoa(int(d.Hours()/24)) + "d"
}

func ageOf(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return age(time.Since(at))
}

// stamp is a time as lists show it, in UTC as everywhere.
func stamp(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.UTC().Format("2006-01-02 15:04:05")
}

// size is bytes for a person.
func size(n int64) string { return spec.Bytes(n).About() }
