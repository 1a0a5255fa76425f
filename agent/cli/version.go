package cli

import (
	"context"
	"errors"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/client"
)

// versionTimeout keeps "version" quick where the agent hangs.
const versionTimeout = 2 * time.Second

// Versions is what both ends run; Agent is nil when none answers.
type Versions struct {
	Client api.Version  `json:"client"`
	Agent  *api.Version `json:"agent,omitempty"`
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "What this binary is, and what the agent runs",
		Args:  args(0, 0, "no arguments"),
		RunE:  func(cmd *cobra.Command, _ []string) error { return a.version(cmd.Context()) },
	}
}

func (a *app) version(ctx context.Context) error {
	both := Versions{Client: buildVersion(a.hooks.Version)}
	c, err := a.connect()
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	switch agent, err := c.Version(limited); {
	case err == nil:
		both.Agent = &agent
	case !errors.Is(err, client.ErrUnreachable):
		a.say("agent: %s", printable(err.Error()))
	}
	return a.show(both, func() []string { return []string{both.Client.Version} }, func() *table {
		t := newTable("PART", "VERSION", "COMMIT", "GO")
		t.add("client", both.Client.Version, short(both.Client.Commit), both.Client.Go)
		if both.Agent == nil {
			t.add("agent", cell{"not running", yellow}, "", "")
			return t
		}
		t.add("agent", both.Agent.Version, short(both.Agent.Commit), both.Agent.Go)
		return t
	})
}

// short is as much of a commit as a person reads.
func short(commit string) string { return commit[:min(12, len(commit))] }

// buildVersion is what the linker and the build know.
func buildVersion(version string) api.Version {
	v := api.Version{Version: version, Go: runtime.Version()}
	if v.Version == "" {
		v.Version = "dev"
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			v.Commit = setting.Value
		}
	}
	return v
}
