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
