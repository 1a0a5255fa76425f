package cli

import "github.com/spf13/cobra"

// Tree is the tree of commands, for programs that write documentation from it.
func Tree() *cobra.Command { return (&app{}).command() }
