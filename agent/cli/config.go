package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/gpuhost/gpuhost/agent/api"
)

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "The agent's own settings", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(
		&cobra.Command{Use: "show", Short: "Settings in force, each with its origin", Args: args(0, 0, "no arguments"),
			RunE: func(cmd *cobra.Command, _ []string) error { return a.configShow(cmd.Context()) }},
	)
	return cmd
}

func (a *app) configShow(ctx context.Context) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	settings, err := c.Config(ctx)
	if err != nil {
		return err
	}
	return a.showSettings(settings)
}

func (a *app) showSettings(settings []api.Setting) error {
	return a.show(api.List[api.Setting]{Items: settings}, func() []string {
		keys := make([]string, len(settings))
		for i, s := range settings {
			keys[i] = s.Key
		}
		return keys
	}, func() *table {
		t := newTable("KEY", "VALUE", "ORIGIN")
		for _, s := range settings {
			t.add(s.Key, s.Value, s.Origin)
		}
		return t
	})
}
