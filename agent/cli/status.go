package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

const statusEvery = 2 * time.Second

func (a *app) statusCommand() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "The machine at a glance; exit code 3 if something is not as wanted",
		Args:  args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if watch {
				return a.watchStatus(cmd.Context())
			}
			return a.status(cmd.Context())
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "again every two seconds until interrupted")
	return cmd
}

func (a *app) watchStatus(ctx context.Context) error {
	ticker := time.NewTicker(statusEvery)
	defer ticker.Stop()
	for {
		if isTerminal(a.Out) {
			fmt.Fprint(a.Out, "\x1b[H\x1b[2J") // home, clear
		}
		if err := a.status(ctx); err != nil && err != error(exitCode(fault.ExitNotConverged)) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

func (a *app) status(ctx context.Context) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	status, err := c.Status(ctx)
	if err != nil {
		return err
	}
	err = a.show(status, func() []string { return []string{status.Hostname} }, func() *table { return statusTable(status) })
	if err == nil && (!status.Ready || !status.Converged || len(status.Problems) > 0) {
		return exitCode(fault.ExitNotConverged)
	}
	return err
}

func statusTable(s api.HostStatus) *table {
	t := newTable("HOST", s.Hostname)
	t.add("agent", fmt.Sprintf("%s, up %s", s.Version, ageOf(s.StartedAt)))
	t.add("id", s.HostID)
	t.add("ready", yesNo(s.Ready))
	t.add("converged", yesNo(s.Converged))
	t.add("kernel", s.Kernel)
	t.add("driver", s.Driver)
	if s.Sim != "" {
		t.add("simulated", cell{s.Sim, yellow})
	}
	t.add("GPUs", fmt.Sprintf("%d free of %d", s.Capacity.GPUsFree, s.Capacity.GPUs))
	t.add("CPUs", fmt.Sprintf("%v promised of %v", s.Capacity.CPUsPromised, s.Capacity.CPUs))
	t.add("memory", fmt.Sprintf("%s promised of %s", size(int64(s.Capacity.MemoryPromised)), size(int64(s.Capacity.Memory))))
	t.add("instances", phasesText(s.Instances))
	for _, part := range s.Parts {
		state := cell{"ok", green}
		if !part.Ready {
			state = cell{strings.TrimSpace("not ready " + part.Message), red}
		}
		t.add(part.Name, state)
	}
	for _, problem := range s.Problems {
		t.add("problem", cell{problem.Name + ": " + problem.Message, red})
		if problem.Hint != "" {
			t.add(" ", "hint: "+problem.Hint)
		}
	}
	return t
}

func yesNo(yes bool) cell {
	if yes {
		return cell{"yes", green}
	}
	return cell{"no", red}
}

func phasesText(counts api.PhaseCounts) string {
	var parts []string
	for phase, n := range counts {
		parts = append(parts, fmt.Sprintf("%d %s", n, spec.Phase(phase)))
	}
	slices.Sort(parts)
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}
