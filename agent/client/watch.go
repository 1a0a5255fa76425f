package client

import (
	"context"
	"errors"
	"time"

	"github.com/gpuhost/gpuhost/agent/api"
)

// How long a watched change survives an agent that is being restarted.
const (
	reconnectEvery = 250 * time.Millisecond
	reconnectFor   = 20 * time.Second
)

// WatchChange calls each with the change at every step until it has ended. A
// restart of the agent in between is waited for: the work goes on without us.
func (c *Client) WatchChange(ctx context.Context, id string, each func(api.Change) error) error {
	lost := time.Time{}
	for {
		ended := false
		err := stream(ctx, c, at("changes", id, "watch"), nil, func(change api.Change) error {
			lost, ended = time.Time{}, change.State.Ended()
			return each(change)
		})
		switch {
		case ended, ctx.Err() != nil:
			return err
		case err != nil && !errors.Is(err, ErrUnreachable):
			return err
		case lost.IsZero():
			lost = time.Now()
		case time.Since(lost) > reconnectFor:
			return c.unreachable(ctx, errors.New("the agent stays away"))
		}
		if err := pause(ctx, reconnectEvery); err != nil {
			return err
		}
	}
}

// Bounds of the pause between two tries to go on with a stream of events.
const (
	resumeFirst = 250 * time.Millisecond
	resumeLast  = 5 * time.Second
)

// FollowEvents calls each with the events that the query asks for and then with
// new ones, until ctx ends or each fails. An agent that is away from the start is
// [ErrUnreachable]. One that goes away later is waited for, as long as it takes,
// and the stream goes on behind the last event that each took; lost hears of it.
func (c *Client) FollowEvents(ctx context.Context, q api.EventQuery, each func(api.Event) error, lost func()) error {
	r := resumption{pause: resumeFirst}
	for {
		resp, err := c.send(ctx, eventsRequest(q, true))
		if err == nil {
			r = resumption{heard: true, pause: resumeFirst}
			err = decodeStream(ctx, c, resp, func(e api.Event) error {
				if err := each(e); err != nil {
					return err
				}
				q.After, q.Since = e.Seq, time.Time{}
				return nil
			})
		}
		if err == nil { // it ended with its agent
			err = c.unreachable(ctx, errors.New("the agent ended the stream"))
		}
		if !r.heard || ctx.Err() != nil || !errors.Is(err, ErrUnreachable) {
			return err
		}
		if err := r.wait(ctx, lost); err != nil {
			return err
		}
	}
}

// resumption is where a stream is that was heard once.
type resumption struct {
	heard bool
	lost  bool // since it was heard last
	pause time.Duration
}

func (r *resumption) wait(ctx context.Context, lost func()) error {
	if !r.lost {
		r.lost = true
		lost()
	}
	err := pause(ctx, r.pause)
	r.pause = min(2*r.pause, resumeLast)
	return err
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
