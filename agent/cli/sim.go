package cli

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/gpuhost/gpuhost/agent/api"
)

// simFault is one way to break a simulated GPU.
type simFault struct {
	fault api.SimFault
	value string // its name in the usage, "" for none
	short string
}

func simFaults() []simFault {
	return []simFault{
		{api.SimXID, "CODE", "The driver logs an XID"},
		{api.SimHang, "", "A question to the driver about it never comes back"},
		{api.SimECC, "COUNT", "So many errors of its memory were not corrected"},
		{api.SimTemperature, "CELSIUS", "It is so hot"},
		{api.SimUnplug, "", "It falls off the bus"},
	}
}

func (a *app) simCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "sim", Short: "Break a simulated GPU, to test with (an agent with --sim only)", Args: cobra.NoArgs,
		Long: `Break a simulated GPU, to see what gpuhost and your own alerts do then. An agent without --sim
refuses: nothing here touches a real GPU.

What is broken stays so until gpuhost sim mend, restarts of the agent included. Metrics and
gpuhost status show it within ten seconds. A GPU that hung is asked again after a minute.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	for _, f := range simFaults() {
		cmd.AddCommand(a.simFaultCommand(f))
	}
	cmd.AddCommand(&cobra.Command{Use: "mend", Short: "Make every GPU whole again", Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			return c.Mend(cmd.Context())
		}})
	return cmd
}

func (a *app) simFaultCommand(f simFault) *cobra.Command {
	use, n, want := string(f.fault)+" GPU", 1, "a GPU: UUID, PCI address or index"
	if f.value != "" {
		use, n, want = use+" "+f.value, 2, want+", and "+f.value
	}
	return &cobra.Command{Use: use, Short: f.short, Args: args(n, n, want), ValidArgsFunction: a.completeGPUs,
		RunE: func(cmd *cobra.Command, given []string) error {
			var value uint64
			if n == 2 {
				var err error
				if value, err = strconv.ParseUint(given[1], 10, 32); err != nil {
					return usage("%s %q is no number", f.value, given[1]).WithHint("%s --help", cmd.CommandPath())
				}
			}
			return a.breakGPU(cmd.Context(), f.fault, given[0], uint32(value))
		}}
}

func (a *app) breakGPU(ctx context.Context, what api.SimFault, text string, value uint32) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	device, err := a.findGPU(ctx, text)
	if err != nil {
		return err
	}
	return c.Break(ctx, api.SimRequest{Fault: what, GPU: device.UUID, Value: value})
}
