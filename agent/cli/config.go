package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/client"
	"github.com/gpuhost/gpuhost/agent/config"
	"github.com/gpuhost/gpuhost/agent/fault"
)

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "The agent's own settings", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(a.configShowCommand(), a.configCheckCommand(), a.configReloadCommand(),
		&cobra.Command{Use: "defaults", Short: "Every setting with what it means, as a file to start from", Args: args(0, 0, "no arguments"),
			RunE: func(*cobra.Command, []string) error {
				_, err := fmt.Fprint(a.Out, config.DefaultText())
				return fault.Wrap(fault.Internal, "write", err)
			}})
	return cmd
}

func (a *app) configShowCommand() *cobra.Command {
	var file string
	var origin bool
	cmd := &cobra.Command{Use: "show", Short: "Settings in force; without an agent, what the files say", Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := a.settings(cmd.Context(), file)
			if err != nil {
				return err
			}
			return a.showSettings(settings, origin)
		}}
	cmd.Flags().StringVar(&file, "config", "", "read this file instead of asking the agent")
	cmd.Flags().BoolVar(&origin, "origin", false, "say where each value comes from")
	return cmd
}

func (a *app) configCheckCommand() *cobra.Command {
	return &cobra.Command{Use: "check [FILE]", Short: "Read the settings as the agent would, and say what is wrong", Args: args(0, 1, "at most one file"),
		RunE: func(_ *cobra.Command, given []string) error {
			file := ""
			if len(given) == 1 {
				file = given[0]
			}
			settings, err := a.loadSettings(file)
			if err != nil {
				return err
			}
			a.say("the settings are right%s", from(settings))
			return nil
		}}
}

func (a *app) configReloadCommand() *cobra.Command {
	return &cobra.Command{
		Use: "reload", Short: "Have the agent read its settings and spec.d again", Args: args(0, 0, "no arguments"),
		Long: `Have the agent read its settings and spec.d again, and wait until it has.

What is bad is the error here and a problem in gpuhost status; what was in force stays so, and
tenants notice nothing. Settings that cannot change while the agent runs are named: they are in
force after a restart of the agent.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.reload(cmd.Context()) },
	}
}

func (a *app) reload(ctx context.Context) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	result, err := c.Reload(ctx)
	if err != nil {
		return err
	}
	if a.structured() {
		return a.show(result, nil, nil)
	}
	for _, key := range result.Waiting {
		a.say("%s is in force after a restart of the agent only", printable(key))
	}
	if len(result.Waiting) > 0 {
		a.say("hint: systemctl restart gpuhost; no tenant notices")
	}
	return nil
}

// from says which files settings were read from: an operator may have meant others.
func from(settings []api.Setting) string {
	var files []string
	for _, s := range settings {
		if file, _, is := strings.Cut(s.Origin, ".toml:"); is && !slices.Contains(files, file+".toml") {
			files = append(files, file+".toml")
		}
	}
	if len(files) == 0 {
		return ": no file sets anything, the defaults are in force"
	}
	return ": " + strings.Join(files, ", ")
}

// settings asks the agent what is in force. Files may have changed since it
// read them, so they are second best and said to be.
func (a *app) settings(ctx context.Context, file string) ([]api.Setting, error) {
	if file != "" {
		return a.loadSettings(file)
	}
	c, err := a.connect()
	if err != nil {
		return nil, err
	}
	settings, err := c.Config(ctx)
	if !errors.Is(err, client.ErrUnreachable) {
		return settings, err
	}
	a.say("no agent answers; this is what the files say")
	return a.loadSettings("")
}

func (a *app) loadSettings(file string) ([]api.Setting, error) {
	root := a.root
	if root != "" {
		absolute, err := filepath.Abs(root)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, "root "+root, err)
		}
		root = absolute
	}
	loaded, err := config.Load(config.Options{Root: root, File: file, Environ: os.Environ()})
	if err != nil {
		return nil, err
	}
	var settings []api.Setting
	for _, s := range loaded.Settings() {
		settings = append(settings, api.Setting{Key: s.Key, Value: s.Value, Origin: s.Origin})
	}
	return settings, nil
}

func (a *app) showSettings(settings []api.Setting, origin bool) error {
	return a.show(api.List[api.Setting]{Items: settings}, func() []string {
		keys := make([]string, len(settings))
		for i, s := range settings {
			keys[i] = s.Key
		}
		return keys
	}, func() *table {
		if origin || a.wide() {
			return originTable(settings)
		}
		t := newTable("KEY", "VALUE")
		for _, s := range settings {
			t.add(s.Key, s.Value)
		}
		return t
	})
}

func originTable(settings []api.Setting) *table {
	t := newTable("KEY", "VALUE", "ORIGIN")
	for _, s := range settings {
		t.add(s.Key, s.Value, s.Origin)
	}
	return t
}
