package cli

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/gpuhost/gpuhost/agent/fault"
)

func (a *app) agentCommand() *cobra.Command {
	var options AgentOptions
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run the daemon",
		Args:  args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if a.hooks.Agent == nil {
				return fault.New(fault.Unsupported, "agent", "this binary holds none")
			}
			if options.Root = a.root; options.Root != "" {
				if options.Root, err = filepath.Abs(a.root); err != nil {
					return fault.Wrap(fault.Invalid, "root "+a.root, err)
				}
			}
			return a.hooks.Agent(cmd.Context(), options)
		},
	}
	cmd.Flags().StringVar(&options.Config, "config", "", "the settings file (default: /etc/gpuhost/gpuhost.toml)")
	cmd.Flags().BoolVar(&options.Remove, "remove", false, "take the agent off this host: its processes, mounts, cgroups, rules; state and settings stay")
	cmd.Flags().BoolVar(&options.Yes, "yes", false, "with --remove: end the instances that are stored; their disks stay")
	cmd.Flags().StringVar(&options.Sim, "sim", "", "pretend to be dgx-a100, dgx-h100, dgx-h200 or dgx-b200")
	_ = cmd.RegisterFlagCompletionFunc("sim",
		cobra.FixedCompletions([]string{"dgx-a100", "dgx-h100", "dgx-h200", "dgx-b200"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}
