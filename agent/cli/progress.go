package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
)

// watchers is how many changes are watched at a time; the rest queue.
const watchers = 32

// finish waits for changes and shows their steps, or prints their ids, as the
// format says, and returns at once with --no-wait. Every change is waited for; the first failure
// is the one returned, the others are told.
func (a *app) finish(ctx context.Context, changes ...api.ChangeRef) error {
	changes = withID(changes)
	if a.noWait {
		return a.showChanges(changes, func(c api.ChangeRef) string { return c.ID })
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	show := newProgress(a.Err, isTerminal(a.Err), len(changes) > 1)
	failures := make([]error, len(changes))
	var group errgroup.Group
	group.SetLimit(watchers)
	for i, change := range changes {
		group.Go(func() error {
			var last api.Change
			err := c.WatchChange(ctx, change.ID, func(now api.Change) error {
				last = now
				show.update(now)
				return nil
			})
			failures[i] = errors.Join(err, outcome(last))
			return nil
		})
	}
	_ = group.Wait() // failures holds the errors
	show.clear()
	if ctx.Err() != nil {
		return a.detached(changes)
	}
	return a.firstOf(failures)
}

// showChanges prints references to changes where a program asked, else the text of
// each.
func (a *app) showChanges(changes []api.ChangeRef, text func(api.ChangeRef) string) error {
	if a.structured() {
		return a.show(api.List[api.ChangeRef]{Items: changes}, nil, nil)
	}
	for _, c := range changes {
		fmt.Fprintln(a.Out, printable(text(c)))
	}
	return nil
}

func withID(changes []api.ChangeRef) []api.ChangeRef {
	named := make([]api.ChangeRef, 0, len(changes))
	for _, c := range changes {
		if c.ID != "" {
			named = append(named, c)
		}
	}
	return named
}

// detached says how to come back to work that goes on without us.
func (a *app) detached(changes []api.ChangeRef) error {
	for _, c := range changes {
		a.say("detached from %s; the work goes on", c.Object)
		a.say("hint: gpuhost changes -f %s", c.ID)
	}
	return exitCode(exitInterrupted)
}

func (a *app) firstOf(failures []error) error {
	var first error
	for _, err := range failures {
		switch {
		case err == nil:
		case first == nil:
			first = err
		default:
			a.tell(err)
		}
	}
	return first
}

// outcome is the error of a change that did not come to its end well.
func outcome(c api.Change) error {
	what := c.Verb + " " + c.Object.String()
	switch c.State {
	case api.ChangeFailed:
		return &fault.Error{Kind: fault.Kind(c.Code), What: what, Why: c.Error, Hint: c.Hint}
	case api.ChangeSuperseded:
		return notConverged(fault.New(fault.Conflict, what, "a newer change took over").WithHint("gpuhost changes"))
	}
	return nil
}

// progress shows steps of changes: on a terminal one live line, elsewhere one
// plain line for each step that ended.
type progress struct {
	out      io.Writer
	terminal bool
	several  bool // changes: lines name their object

	mu   sync.Mutex
	told map[string]bool // steps that have had their line
	live bool            // the cursor stands behind a live line
}

func newProgress(out io.Writer, terminal, several bool) *progress {
	return &progress{out: out, terminal: terminal, several: several, told: make(map[string]bool)}
}

func (p *progress) update(c api.Change) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, step := range c.Steps {
		key := c.ID + " " + step.ID
		if step.State.Ended() && !p.told[key] {
			p.told[key] = true
			p.line(c, step)
		}
		if step.State == api.ChangeRunning && p.terminal {
			p.liveLine(c, step)
		}
	}
}

func (p *progress) line(c api.Change, step api.ChangeStep) {
	text := p.prefix(c, step) + stepText(step)
	switch {
	case step.State == api.ChangeFailed:
		text += " failed"
	case step.Duration > 0:
		text += " (" + time.Duration(step.Duration).Round(time.Millisecond).String() + ")"
	}
	p.erase()
	fmt.Fprintln(p.out, text)
}

func (p *progress) liveLine(c api.Change, step api.ChangeStep) {
	p.erase()
	fmt.Fprint(p.out, p.prefix(c, step)+stepText(step)+bar(step.Progress))
	p.live = true
}

// prefix names the change's object where several are told of, unless the step does.
func (p *progress) prefix(c api.Change, step api.ChangeStep) string {
	if !p.several || step.Title == c.Object.String() {
		return ""
	}
	return printable(c.Object.String()) + ": "
}

// erase takes the live line away: carriage return, clear to the end of line.
func (p *progress) erase() {
	if p.live {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.live = false
	}
}

func (p *progress) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
}

// stepText is what a step does: its id begins with "room/verb".
func stepText(step api.ChangeStep) string {
	doing, _, _ := strings.Cut(step.ID, " ")
	return printable(doing + " " + step.Title)
}

const barWidth = 24

// bar shows how far a step is; nothing where it does not say.
func bar(p *plan.Progress) string {
	if p == nil {
		return ""
	}
	if p.Done == 0 && p.Total == 0 {
		return note(p)
	}
	if p.Total <= 0 {
		return " " + amount(p.Done, p.Unit) + note(p)
	}
	done := min(max(p.Done, 0), p.Total)
	filled := int(float64(done) / float64(p.Total) * barWidth)
	return fmt.Sprintf(" [%s%s] %s of %s%s", strings.Repeat("#", filled), strings.Repeat(".", barWidth-filled),
		amount(done, p.Unit), amount(p.Total, p.Unit), note(p))
}

func amount(n int64, unit string) string {
	if unit == "bytes" {
		return size(n)
	}
	return strings.TrimSpace(fmt.Sprint(n, " ", unit))
}

func note(p *plan.Progress) string {
	if p.Note == "" {
		return ""
	}
	return " " + printable(p.Note)
}
