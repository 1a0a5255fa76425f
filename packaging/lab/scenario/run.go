package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gpuhost/gpuhost/packaging/lab/machine"
	"github.com/gpuhost/gpuhost/packaging/lab/wire"
)

// usualBoot is what a boot takes where nothing else runs. The longest boot of a
// machine says how much slower things are where it is, and all patience grows with it.
const usualBoot = 30 * time.Second

// downPatience is how long a machine may take to go down.
const downPatience = 2 * time.Minute

// Guest is the machine that scenarios run on: [machine.Machine], or a fake.
type Guest interface {
	Boot(context.Context) (*wire.Hello, error)
	Run(ctx context.Context, script string, timeout time.Duration, out io.Writer) (wire.Exit, error)
	WaitDown(context.Context) error
	Cut()
	Journal() string
}

// Runner runs scenarios one after another, on one machine as long as they pass.
type Runner struct {
	New    func() (Guest, error) // a fresh machine, switched off
	Report *Report
	Sample int                          // at most so many values of a scenario's Each, spread over all; 0: all
	Keep   func(context.Context, Guest) // called with the machine of the last scenario, and of the first that fails

	guest  Guest           // nil: the next scenario begins on a fresh one
	slow   time.Duration   // how many times slower than usual, at least once
	done   map[string]bool // what passed on this machine
	failed map[string]bool // on any
}

// Run runs scenarios as [Select] orders them and says whether all passed.
func (r *Runner) Run(ctx context.Context, scenarios []*Scenario) bool {
	r.done, r.failed = map[string]bool{}, map[string]bool{}
	for _, s := range scenarios {
		for _, value := range s.values(r.Sample) {
			err := r.runAfterNeeds(ctx, scenarios, s, value)
			if err == nil {
				continue
			}
			if r.failed[s.Name] = true; r.Keep != nil && r.guest != nil {
				r.Keep(ctx, r.guest)
				r.Keep = nil
			}
			r.off()
			if ctx.Err() != nil {
				return false
			}
		}
	}
	if r.Keep != nil && r.guest != nil {
		r.Keep(ctx, r.guest)
	}
	r.off()
	return len(r.failed) == 0
}

// values are those of Each, or a sample of them; without Each one that is nothing.
func (s *Scenario) values(sample int) []string {
	all := s.Each.Values
	if s.Each.Variable == "" {
		return []string{""}
	}
	if sample == 0 || sample >= len(all) {
		return all
	}
	var some []string
	for i := range sample {
		some = append(some, all[i*len(all)/sample])
	}
	return some
}

// runAfterNeeds runs a scenario on a machine on which its needs have passed.
func (r *Runner) runAfterNeeds(ctx context.Context, all []*Scenario, s *Scenario, value string) error {
	for _, need := range s.Needs {
		if r.failed[need] {
			r.Report.skipped(s, need)
			return errors.New("not run")
		}
		for _, other := range all {
			if other.Name == need && !r.done[need] {
				if err := r.runAfterNeeds(ctx, all, other, other.values(1)[0]); err != nil {
					return err
				}
			}
		}
	}
	if r.done[s.Name] && s.Each.Variable == "" {
		return nil
	}
	if err := r.run(ctx, s, value); err != nil {
		return err
	}
	r.done[s.Name] = true
	return nil
}

func (r *Runner) run(ctx context.Context, s *Scenario, value string) error {
	r.Report.scenario(s, value)
	if err := r.on(ctx); err != nil {
		return r.Report.broken(err)
	}
	for i := range s.Steps {
		step := &s.Steps[i]
		journal := r.Report.step(step, r.guest.Journal())
		var out bytes.Buffer
		err := r.do(ctx, s, step, value, io.MultiWriter(&out, r.Report.Live))
		if r.Report.result(err, out.Bytes(), journal); err != nil {
			return err
		}
	}
	return nil
}

// on makes and boots a machine where there is none.
func (r *Runner) on(ctx context.Context) error {
	if r.guest != nil {
		return nil
	}
	guest, err := r.New()
	if err != nil {
		return fmt.Errorf("make the machine: %w", err)
	}
	r.guest = guest
	return r.boot(ctx)
}

func (r *Runner) boot(ctx context.Context) error {
	begin := time.Now()
	hello, err := r.guest.Boot(ctx)
	if err != nil {
		return err
	}
	took := time.Since(begin)
	r.slow = max(r.slow, 1, took/usualBoot)
	r.Report.booted(hello, took)
	return nil
}

func (r *Runner) off() {
	if r.guest != nil {
		r.guest.Cut()
	}
	r.guest = nil
	clear(r.done)
}

// do runs a step's lines and then its order.
func (r *Runner) do(ctx context.Context, s *Scenario, step *Step, value string, out io.Writer) error {
	exit, err := r.guest.Run(ctx, step.Script(prelude(s, value, r.slow)), s.Timeout*r.slow, out)
	if step.Order == AwaitCut {
		return r.awaitCut(ctx, exit, err)
	}
	if err := failure(exit, err); err != nil {
		return err
	}
	switch step.Order {
	case Cut:
		r.guest.Cut()
		return r.boot(ctx)
	case Reboot:
		return r.reboot(ctx)
	}
	return nil
}

// prelude is what every script begins with, on one line.
func prelude(s *Scenario, value string, slow time.Duration) string {
	text := fmt.Sprintf("set -Eeuo pipefail; slow=%d; . /opt/lab/scenarios/lib.sh; ", slow)
	if s.Each.Variable != "" {
		text += fmt.Sprintf("%s='%s'; ", s.Each.Variable, value)
	}
	return text
}

func failure(exit wire.Exit, err error) error {
	switch {
	case err != nil:
		return err
	case exit.Reason != "":
		return errors.New(exit.Reason)
	case exit.Code != 0:
		return fmt.Errorf("exit status %d", exit.Code)
	}
	return nil
}

// awaitCut: the machine cuts its own power, in the middle of the step's lines or
// some time after them.
func (r *Runner) awaitCut(ctx context.Context, exit wire.Exit, err error) error {
	if err == nil {
		if err := failure(exit, nil); err != nil {
			return err
		}
		err = r.waitDown(ctx)
	}
	var down *machine.Down
	if !errors.As(err, &down) || !down.PowerCut {
		return fmt.Errorf("the power was not cut: %w", err)
	}
	return r.boot(ctx)
}

func (r *Runner) reboot(ctx context.Context) error {
	// The driver ends with the system and may not come to say so.
	exit, err := r.guest.Run(ctx, "systemctl reboot", downPatience*r.slow, io.Discard)
	var down *machine.Down
	if !errors.As(err, &down) {
		if err := failure(exit, err); err != nil {
			return err
		}
		err = r.waitDown(ctx)
	}
	if !errors.As(err, &down) || down.Panic != "" || down.Err != nil || down.PowerCut {
		return err
	}
	return r.boot(ctx)
}

func (r *Runner) waitDown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, downPatience*r.slow)
	defer cancel()
	return r.guest.WaitDown(ctx)
}
