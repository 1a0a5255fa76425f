package cli

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gpuhost/gpuhost/agent/client"
	"github.com/gpuhost/gpuhost/agent/spec"
)

func TestWaitUntil(t *testing.T) {
	away := fmt.Errorf("read: %w", client.ErrUnreachable)
	refused := errors.New("refused")
	pulling := &spec.Object{Status: &spec.Status{Phase: spec.PhasePulling}}
	running := &spec.Object{Status: &spec.Status{Phase: spec.PhaseRunning}}
	type answer struct {
		object *spec.Object
		err    error
	}
	for name, row := range map[string]struct {
		answers []answer
		want    error
	}{
		"at once":                   {[]answer{{running, nil}}, nil},
		"after a while":             {[]answer{{pulling, nil}, {pulling, nil}, {running, nil}}, nil},
		"over a restart":            {[]answer{{pulling, nil}, {nil, away}, {nil, away}, {running, nil}}, nil},
		"nobody answers":            {[]answer{{nil, away}}, away},
		"the agent refuses":         {[]answer{{pulling, nil}, {nil, refused}}, refused},
		"never, until time is over": {[]answer{{pulling, nil}}, context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				read := func() (*spec.Object, error) {
					next := row.answers[0]
					if len(row.answers) > 1 {
						row.answers = row.answers[1:]
					}
					return next.object, next.err
				}
				_, err := waitUntil(ctx, nil, read, func(o *spec.Object) bool { return o == running })
				if !errors.Is(err, row.want) {
					t.Errorf("%v, want %v", err, row.want)
				}
			})
		})
	}
}

// Between two events the object is read once a second at last, and at an event at
// once.
func TestWaitUntilReadsAtEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		happened := make(chan struct{}, 1)
		reads, begin := 0, time.Now()
		read := func() (*spec.Object, error) {
			if reads++; reads == 20 {
				happened <- struct{}{}
			}
			return &spec.Object{}, nil
		}
		var at []time.Duration
		_, _ = waitUntil(ctx, happened, read, func(*spec.Object) bool {
			at = append(at, time.Since(begin))
			return len(at) == 21
		})
		if last := at[20]; last != at[19] || at[19]-at[18] != waitLast {
			t.Errorf("reads at %v", at)
		}
	})
}
