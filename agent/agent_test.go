package agent

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestHowTheAgentsTasksEnd(t *testing.T) {
	waits := func(ctx context.Context) error { <-ctx.Done(); return nil }
	grumbles := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	breaks := func(ctx context.Context) error { <-ctx.Done(); return errors.New("left something") }
	ends := func(context.Context) error { return nil }
	fails := func(context.Context) error { return errors.New("no socket") }
	gaveUp := func(context.Context) error { return context.Canceled } // of something else than the agent
	for name, row := range map[string]struct {
		tasks []task
		stop  bool
		want  string
	}{
		"all are told to end":                  {[]task{{name: "a", run: waits}, {name: "b", run: grumbles}}, true, ""},
		"one cannot end well":                  {[]task{{name: "a", run: waits}, {name: "b", run: breaks}}, true, "b: left something"},
		"one fails":                            {[]task{{name: "a", run: grumbles}, {name: "b", run: fails}}, false, "b: no socket"},
		"one ends by itself":                   {[]task{{name: "a", run: waits}, {name: "b", run: ends}}, false, "b: it ended by itself"},
		"a spare one ends by itself":           {[]task{{name: "a", run: waits}, {name: "b", run: ends, spare: true}}, true, ""},
		"a spare one fails":                    {[]task{{name: "a", run: waits}, {name: "b", run: fails, spare: true}}, false, "b: no socket"},
		"one gave up though nobody stopped it": {[]task{{name: "a", run: waits}, {name: "b", run: gaveUp}}, false, "b: context canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if row.stop {
				cancel()
			}
			got := ""
			if err := together(ctx, row.tasks); err != nil {
				got = err.Error()
			}
			if got != row.want {
				t.Errorf("%q, want %q", got, row.want)
			}
		})
	}
}

func TestNoTaskReportsTheAgentsOwnEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := together(ctx, []task{{name: "a", run: func(ctx context.Context) error {
		return errors.Join(errors.New("while it waited"), ctx.Err())
	}}})
	if err != nil && strings.Contains(err.Error(), "canceled") {
		t.Errorf("%v", err)
	}
}
