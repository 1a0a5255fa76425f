package scenario

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/gpuhost/gpuhost/packaging/lab/wire"
)

// enough lines to see why a step failed; the whole journal is in its file.
const enough = 60

// Report tells a person how the scenarios go, while they go.
type Report struct {
	Out     io.Writer
	Live    io.Writer // gets what the steps print while they print it
	Verbose bool      // show the output of steps that pass, too

	begin          time.Time
	note           string // what happened within a step, said after it
	inStep         bool
	passed, failed int
}

// journal is where a guest's journal stood when a step began.
type journal struct {
	path   string
	offset int64
}

func (r *Report) scenario(s *Scenario, value string) {
	name := s.Name
	if value != "" {
		name += " (" + value + ")"
	}
	fmt.Fprintf(r.Out, "\n== %s: %s\n", name, s.About)
}

func (r *Report) booted(hello *wire.Hello, took time.Duration) {
	r.note = fmt.Sprintf("   (booted Linux %s in %.1fs, driver up %.1fs after the kernel began)\n", hello.Kernel, took.Seconds(), hello.Uptime.Seconds())
	if !r.inStep {
		r.sayNote()
	}
}

func (r *Report) sayNote() {
	fmt.Fprint(r.Out, r.note)
	r.note = ""
}

func (r *Report) step(s *Step, journalPath string) journal {
	fmt.Fprintf(r.Out, "   %-60s ", s.Name)
	fmt.Fprintf(r.Live, "\n## %s\n", s.Name)
	r.begin, r.inStep = time.Now(), true
	j := journal{path: journalPath}
	if info, err := os.Stat(journalPath); err == nil {
		j.offset = info.Size()
	}
	return j
}

func (r *Report) result(err error, out []byte, j journal) {
	took := time.Since(r.begin).Seconds()
	r.inStep = false
	defer r.sayNote()
	if err == nil {
		r.passed++
		fmt.Fprintf(r.Out, "ok %6.1fs\n", took)
		if r.Verbose {
			r.quote(out)
		}
		return
	}
	r.failed++
	fmt.Fprintf(r.Out, "FAILED after %.1fs: %s\n", took, err)
	r.quote(out)
	fmt.Fprintf(r.Out, "     the journal meanwhile (%s):\n", j.path)
	r.quote(j.read())
}

// broken reports what kept a scenario from its first step.
func (r *Report) broken(err error) error {
	r.failed++
	fmt.Fprintf(r.Out, "   FAILED: %s\n", err)
	return err
}

func (r *Report) skipped(s *Scenario, need string) {
	fmt.Fprintf(r.Out, "\n== %s: not run, because %s failed\n", s.Name, need)
}

// Sums prints the last line.
func (r *Report) Sums(took time.Duration) {
	fmt.Fprintf(r.Out, "\nlab: %d steps passed, %d failed; %.0fs\n", r.passed, r.failed, took.Seconds())
}

// quote prints the last lines of a text.
func (r *Report) quote(text []byte) {
	lines := strings.Split(strings.TrimRight(string(bytes.ReplaceAll(text, []byte("\r"), nil)), "\n"), "\n")
	if left := len(lines) - enough; left > 0 {
		fmt.Fprintf(r.Out, "     | (%d lines before)\n", left)
		lines = lines[left:]
	}
	for _, line := range lines {
		if line != "" {
			fmt.Fprintf(r.Out, "     | %s\n", line)
		}
	}
}

// read returns what was written since.
func (j journal) read() []byte {
	f, err := os.Open(j.path)
	if err != nil {
		return []byte(err.Error())
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, j.offset, 1<<30))
	if err != nil {
		return []byte(err.Error())
	}
	return text
}
