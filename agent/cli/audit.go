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
look could not. -o wide shows in full what was expected and found of each.`,
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
	if len(reports) == 0 && !a.structured() {
		a.say("no instance is running")
		return nil
	}
	var names []string
	pass := true
	for _, report := range reports {
		pass = pass && report.Pass
		names = append(names, refName(report.Object))
	}
	draw := auditTable
	if a.wide() {
		draw = wideAuditTable
	}
	err := a.show(api.List[api.AuditReport]{Items: reports}, func() []string { return names }, func() *table { return draw(reports) })
	if err == nil && !pass {
		return exitCode(fault.ExitNotConverged)
	}
	return err
}

// auditTable fits a terminal where all is well: of what passes the beginning is
// shown, of what does not all that was found and expected.
func auditTable(reports []api.AuditReport) *table {
	const short = 60
	t := newTable("INSTANCE", "CONTROL", "WHAT", "RESULT", "FOUND")
	eachControl(reports, func(name string, c spec.Control) {
		found := c.Found
		if c.Pass {
			found = shortened(found, short)
		}
		t.add(name, c.ID, c.Name, passed(c), found)
		if !c.Pass {
			t.add(" ", " ", " ", "expected", c.Expected)
		}
	})
	return t
}

func wideAuditTable(reports []api.AuditReport) *table {
	t := newTable("INSTANCE", "CONTROL", "WHAT", "EXPECTED", "FOUND", "RESULT")
	eachControl(reports, func(name string, c spec.Control) {
		t.add(name, c.ID, c.Name, c.Expected, c.Found, passed(c))
	})
	return t
}

func eachControl(reports []api.AuditReport, do func(name string, c spec.Control)) {
	for _, report := range reports {
		for _, c := range report.Controls {
			do(refName(report.Object), c)
		}
	}
}

func passed(c spec.Control) cell {
	switch {
	case c.Unknown:
		return cell{"unknown", yellow}
	case !c.Pass:
		return cell{"FAIL", red}
	default:
		return cell{"pass", green}
	}
}

// shortened cuts a text to so many characters.
func shortened(text string, limit int) string {
	if runes := []rune(text); len(runes) > limit {
		return string(runes[:limit-1]) + "…"
	}
	return text
}
