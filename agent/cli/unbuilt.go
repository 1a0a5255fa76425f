package cli

import (
	"github.com/spf13/cobra"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// unbuiltCommands are named by the contract and come later. They say so instead
// of being unknown, and help does not list them.
func unbuiltCommands() []string {
	return []string{"reset", "rename", "resize", "cordon", "uncordon", "drain", "backup", "restore", "mig", "driver", "acl",
		"usage", "top", "support", "fleet"}
}

func (a *app) addUnbuilt(root *cobra.Command) {
	for _, name := range unbuiltCommands() {
		root.AddCommand(unbuilt(name))
	}
}

func unbuilt(name string) *cobra.Command {
	return &cobra.Command{
		Use: name, Hidden: true, DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return fault.New(fault.Unsupported, cmd.CommandPath(), "is not built yet").WithHint("gpuhost help")
		},
	}
}
