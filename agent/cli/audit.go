package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

func (a *app) auditCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "audit [NAME]",
		Short: "Read each isolation control back from the kernel; exit code 3 if one fails",
		Long: `Read each isolation control of an instance, or of all running ones, back from the kernel and
compare it with what was granted. Exit code 3 if one fails, or is unknown because what was to
look could not.`,
		Args:              args(0, 1, "at most one name"),
		ValidArgsFunction: a.completeNames(spec.KindInstance),
		RunE: func(cmd *cobra.Command, given []string) error {
			reports, err := a.audit(cmd.Context(), given)
			if err != nil {
				return err
			}
			return a.showAudit(reports)
		},
	}
}

func (a *app) audit(ctx context.Context, given []string) ([]api.AuditReport, error) {
	c, err := a.connect()
	if err != nil {
		return nil, err
	}
	if len(given) == 0 {
		return c.AuditAll(ctx)
	}
	ref, err := a.ref(ctx, spec.KindInstance, given[0])
	if err != nil {
		return nil, err
	}
	report, err := c.Audit(ctx, ref)
	return []api.AuditReport{report}, err
}

func (a *app) showAudit(reports []api.AuditReport) error {
	pass := true
	t := newTable("INSTANCE", "CONTROL", "WHAT", "EXPECTED", "FOUND", "RESULT")
	var names []string
	for _, report := range reports {
		pass = pass && report.Pass
		names = append(names, refName(report.Object))
		for _, control := range report.Controls {
			result := cell{"pass", green}
			switch {
			case control.Unknown:
				result = cell{"unknown", yellow}
			case !control.Pass:
				result = cell{"FAIL", red}
			}
			t.add(refName(report.Object), control.ID, control.Name, control.Expected, control.Found, result)
		}
	}
	if len(reports) == 0 && !a.structured() {
		a.say("no instance is running")
		return nil
	}
	err := a.show(api.List[api.AuditReport]{Items: reports}, func() []string { return names }, func() *table { return t })
	if err == nil && !pass {
		return exitCode(fault.ExitNotConverged)
	}
	return err
}
