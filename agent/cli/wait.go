package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/client"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// The object is read at each event. Phases also change without one of their own,
// so it is read again after a pause that grows from the first to the last.
const (
	waitFirst = 50 * time.Millisecond
	waitLast  = time.Second
)

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
		return func(o *spec.Object) bool { return o != nil && holds(o, value) }, nil
	}
	return nil, usage("--for %q is none of phase=X, condition=Y, deleted", goal).WithHint("gpuhost wait --help")
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

// holds keeps a condition of an older specification from counting.
func holds(o *spec.Object, condition string) bool {
	return o.Status != nil && slices.ContainsFunc(o.Status.Conditions, func(c spec.Condition) bool {
		return strings.EqualFold(c.Type, condition) && c.Status && c.ObservedGeneration >= o.Metadata.Generation
	})
}

func (a *app) wait(ctx context.Context, ref spec.Ref, goal string, done reached, timeout time.Duration) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	happened := make(chan struct{}, 1)
	var listener sync.WaitGroup
	listener.Go(func() { listen(limited, c, ref.Tenant, happened) })
	defer listener.Wait()
	defer cancel()
	seen, err := waitUntil(limited, happened, func() (*spec.Object, error) { return readOrGone(limited, c, ref, goal) }, done)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case limited.Err() != nil:
		return fault.New(fault.Timeout, "wait for "+ref.String(), "%s not reached within %s, its phase is %s", goal, timeout, seen).
			WithHint("gpuhost describe %s %s", ref.Kind.Lower(), refName(ref))
	}
	return err
}

// waitUntil reads until the object is as wanted, and says what its last phase was.
// An agent that answered once and is away then is being restarted: it is waited for.
func waitUntil(ctx context.Context, happened <-chan struct{}, read func() (*spec.Object, error), done reached) (spec.Phase, error) {
	seen, known, pause := spec.Phase(""), false, waitFirst
	for {
		o, err := read()
		switch {
		case err == nil && done(o):
			return seen, nil
		case err == nil && o != nil:
			seen, known = phaseOf(o), true
		case err != nil && !(known && errors.Is(err, client.ErrUnreachable)):
			return seen, err
		}
		select {
		case <-ctx.Done():
			return seen, ctx.Err()
		case <-happened:
			pause = waitFirst
		case <-time.After(pause):
			pause = min(2*pause, waitLast)
		}
	}
}

// listen tells of events of a tenant's objects while ctx lasts; many at once may
// be told as one. Without them the object is read all the same.
func listen(ctx context.Context, c *client.Client, tenant string, happened chan<- struct{}) {
	last, err := lastEvent(ctx, c, tenant)
	if err != nil {
		return
	}
	_ = c.FollowEvents(ctx, api.EventQuery{After: last, Tenant: tenant}, func(api.Event) error {
		select {
		case happened <- struct{}{}:
		default:
		}
		return nil
	}, func() {})
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
