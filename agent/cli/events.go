package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/fault"
)

// latest is how many events and changes are shown when nobody says how many.
const latest = 100

func (a *app) eventsCommand() *cobra.Command {
	var follow bool
	var since string
	cmd := &cobra.Command{
		Use:   "events [-f] [--since WHEN]",
		Short: "What happened; WHEN is 10m, a time, or the last event's number",
		Args:  args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.events(cmd.Context(), since, follow)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new ones until interrupted")
	cmd.Flags().StringVar(&since, "since", "", "10m, 2026-11-24T10:00:00Z, or an event's number")
	return cmd
}

func (a *app) events(ctx context.Context, since string, follow bool) error {
	query, err := eventQuery(since, time.Now())
	if err != nil {
		return err
	}
	query.Tenant = a.tenant
	c, err := a.connect()
	if err != nil {
		return err
	}
	switch {
	case !follow:
		return c.Events(ctx, query, a.printEvent)
	case since != "":
		return c.FollowEvents(ctx, query, a.printEvent, a.sayLost)
	}
	// Followed without a start: the latest ones, then what comes.
	last := uint64(0)
	err = c.Events(ctx, query, func(e api.Event) error {
		last = e.Seq
		return a.printEvent(e)
	})
	if err != nil {
		return err
	}
	return c.FollowEvents(ctx, api.EventQuery{After: last, Tenant: a.tenant}, a.printEvent, a.sayLost)
}

// sayLost tells why nothing comes for a while. Nothing is missed: what happens
// meanwhile is told when the agent is back.
func (a *app) sayLost() { a.say("the agent is away; this goes on when it is back") }

// eventQuery reads --since.
func eventQuery(since string, now time.Time) (api.EventQuery, error) {
	if since == "" {
		return api.EventQuery{Limit: latest}, nil
	}
	if seq, err := strconv.ParseUint(since, 10, 63); err == nil {
		return api.EventQuery{After: seq}, nil
	}
	at, err := sinceTime(since, now)
	return api.EventQuery{Since: at}, err
}

// sinceTime reads "10m" as that long ago, or an RFC 3339 time.
func sinceTime(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, fault.New(fault.Invalid, "--since "+quoted(text), "is neither a duration nor a time").
			WithHint("for example --since 10m or --since 2026-11-24T10:00:00Z")
	}
	return at, nil
}

// printEvent prints a line; lists of events have no end, so no table either.
func (a *app) printEvent(e api.Event) error {
	switch a.output {
	case formatJSON:
		return fault.Wrap(fault.Internal, "write event", json.NewEncoder(a.Out).Encode(e))
	case formatYAML:
		fmt.Fprintln(a.Out, "---")
		return a.showYAML(e)
	case formatName:
		fmt.Fprintln(a.Out, e.Seq)
		return nil
	}
	object := ""
	if e.Object.Name != "" {
		object = " " + e.Object.String() + ":"
	}
	p := a.painter(a.Out)
	reason := p.paint(eventColour(e), printable(e.Reason))
	fmt.Fprintf(a.Out, "%d %s%s %s %s\n", e.Seq, stamp(e.At), printable(object), reason, printable(e.Message))
	return nil
}

func eventColour(e api.Event) colour {
	if e.Type == "warning" {
		return yellow
	}
	return plain
}
