package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/fault"
)

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor [CHECK...]",
		Short: "What is wrong with this host and the command that mends it; exit code 3 if a check fails",
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, checks []string) error {
			return a.doctor(cmd.Context(), checks)
		},
	}
}

func (a *app) doctor(ctx context.Context, checks []string) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	results, err := c.Doctor(ctx, checks)
	if err != nil {
		return err
	}
	failed := false
	t := newTable("CHECK", "RESULT", "WHAT")
	var names []string
	for _, r := range results {
		failed = failed || r.State == api.CheckFail
		names = append(names, r.Name)
		t.add(r.Name, checkCell(r.State), r.Message)
		if r.Hint != "" && r.State != api.CheckPass {
			t.add(" ", "hint", r.Hint)
		}
	}
	err = a.show(api.List[api.CheckResult]{Items: results}, func() []string { return names }, func() *table { return t })
	if err == nil && failed {
		return exitCode(fault.ExitNotConverged)
	}
	return err
}

func checkCell(state api.CheckState) cell {
	switch state {
	case api.CheckPass:
		return cell{"pass", green}
	case api.CheckWarn:
		return cell{"warn", yellow}
	}
	return cell{"FAIL", red}
}
