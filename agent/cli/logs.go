package cli

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

func (a *app) logsCommand() *cobra.Command {
	var follow bool
	var since string
	var tail int
	cmd := &cobra.Command{
		Use:               "logs NAME",
		Short:             "What an instance wrote",
		Long:              "What an instance wrote. The log of one that was deleted is kept for a day: its name, until another instance takes it, or its uid shows it.",
		Args:              args(1, 1, "the name of an instance"),
		ValidArgsFunction: a.completeNames(spec.KindInstance),
		RunE: func(cmd *cobra.Command, given []string) error {
			if tail < 0 {
				return usage("--tail %d is negative", tail)
			}
			at, err := sinceTime(since, time.Now())
			if err != nil {
				return err
			}
			return a.logs(cmd.Context(), given[0], api.LogOptions{Follow: follow, Since: at, Tail: tail})
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new text until interrupted")
	cmd.Flags().StringVar(&since, "since", "", "10m, or a time")
	cmd.Flags().IntVar(&tail, "tail", 0, "only the last lines")
	return cmd
}

func (a *app) logs(ctx context.Context, name string, options api.LogOptions) error {
	ref, err := a.ref(ctx, spec.KindInstance, name)
	if err != nil {
		return err
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	log, err := c.Logs(ctx, ref, options)
	if err != nil {
		return err
	}
	defer log.Close()
	if !log.DeletedAt.IsZero() {
		a.say("%s is gone since %s; this is what is kept of its log", ref, stamp(log.DeletedAt))
	}
	if _, err := io.Copy(a.Out, log); err != nil && ctx.Err() == nil {
		return fault.Wrap(fault.Temporary, "read the log of "+ref.String(), err)
	}
	return ctx.Err()
}
