package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gpuhost/gpuhost/agent/client"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// waitEvery is how often the object is read. Phases change without an event of
// their own, so events alone would not do.
const waitEvery = 200 * time.Millisecond

func (a *app) waitCommand() *cobra.Command {
	var goal string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "wait --for=phase=X|condition=Y|deleted [KIND] NAME",
		Short: "Wait until an object is as said; exit code 8 after --timeout",
		Example: `  gpuhost wait --for=phase=Running acme/train-1
  gpuhost wait --for=deleted network acme/lab --timeout 30s`,
		Args:              args(1, 2, "a name, or a kind and a name"),
		ValidArgsFunction: a.completeNames(spec.KindInstance),
		RunE: func(cmd *cobra.Command, given []string) error {
			reached, err := parseGoal(goal)
			if err != nil {
				return err
			}
			kind, name := spec.KindInstance, given[len(given)-1]
			if len(given) == 2 {
				if kind, err = kindOf(given[0]); err != nil {
					return err
				}
			}
			ref, err := a.ref(cmd.Context(), kind, name)
			if err != nil {
				return err
			}
			return a.wait(cmd.Context(), ref, goal, reached, timeout)
		},
	}
	cmd.Flags().StringVar(&goal, "for", "", "phase=X, condition=Y or deleted")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "how long to wait")
	return cmd
}

// reached says whether an object is as wanted. The object is nil when it is gone.
type reached func(*spec.Object) bool

func parseGoal(goal string) (reached, error) {
	what, value, _ := strings.Cut(goal, "=")
	switch {
	case goal == "deleted":
		return func(o *spec.Object) bool { return o == nil }, nil
	case what == "phase" && value != "":
		phase, err := parsePhase(value)
		return func(o *spec.Object) bool { return o != nil && upToDate(o) && o.Status.Phase == phase }, err
	case what == "condition" && value != "":
		return func(o *spec.Object) bool { return o != nil && o.Status != nil && holds(o.Status, value) }, nil
	}
	return nil, usage("--for %q is none of phase=X, condition=Y, deleted", goal)
}

func parsePhase(text string) (spec.Phase, error) {
	phases := []spec.Phase{spec.PhasePending, spec.PhasePulling, spec.PhaseStarting, spec.PhaseRunning, spec.PhaseStopping,
		spec.PhaseStopped, spec.PhaseFailed, spec.PhaseFenced, spec.PhaseUnknown}
	var names []string
	for _, phase := range phases {
		if strings.EqualFold(string(phase), text) {
			return phase, nil
		}
		names = append(names, string(phase))
	}
	return "", usage("phase %q is unknown", text).WithHint("known: %s", strings.Join(names, ", "))
}

// upToDate keeps a phase of an older specification from counting.
func upToDate(o *spec.Object) bool {
	return o.Status != nil && o.Status.ObservedGeneration >= o.Metadata.Generation
}

func holds(status *spec.Status, condition string) bool {
	return slices.ContainsFunc(status.Conditions, func(c spec.Condition) bool {
		return strings.EqualFold(c.Type, condition) && c.Status
	})
}

func (a *app) wait(ctx context.Context, ref spec.Ref, goal string, done reached, timeout time.Duration) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ticker := time.NewTicker(waitEvery)
	defer ticker.Stop()
	seen := spec.Phase("")
	for {
		o, err := readOrGone(limited, c, ref, goal)
		if err == nil && done(o) {
			return nil
		}
		if err == nil && o != nil {
			seen = phaseOf(o)
		}
		if err != nil && limited.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-limited.Done():
			return fault.New(fault.Timeout, "wait for "+ref.String(), "%s not reached within %s, its phase is %s", goal, timeout, seen).
				WithHint("gpuhost describe %s %s", ref.Kind.Lower(), refName(ref))
		case <-ticker.C:
		}
	}
}

// readOrGone gives nil for an object that is gone where that is what is waited
// for; elsewhere it is an error.
func readOrGone(ctx context.Context, c *client.Client, ref spec.Ref, goal string) (*spec.Object, error) {
	o, err := c.Get(ctx, ref)
	if fault.Is(err, fault.NotFound) && goal == "deleted" {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("wait for %s: %w", ref, err)
	}
	return o, nil
}
