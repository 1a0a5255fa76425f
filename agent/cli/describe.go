package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/client"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// describeEvents is how many of the latest events of the tenant are searched
// for the object's own.
const describeEvents = 500

func (a *app) describeCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "describe KIND NAME",
		Short:             "Everything about one object: specification, conditions, events",
		Args:              args(1, 2, "a kind and a name"),
		ValidArgsFunction: a.completeKindAndNames,
		RunE: func(cmd *cobra.Command, given []string) error {
			kind, err := kindOf(given[0])
			if err != nil {
				return err
			}
			name := api.HostName
			if kind != spec.KindHost {
				if len(given) < 2 {
					return usage("describe %s wants a name", kind.Lower())
				}
				name = given[1]
			}
			return a.describe(cmd.Context(), kind, name)
		},
	}
}

func (a *app) describe(ctx context.Context, kind spec.Kind, name string) error {
	ref, err := a.ref(ctx, kind, name)
	if err != nil {
		return err
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	o, err := c.Get(ctx, ref)
	if err != nil {
		return err
	}
	if a.structured() {
		return a.show(o, nil, nil)
	}
	events, err := eventsOf(ctx, c, ref)
	if err != nil {
		return err
	}
	text, err := description(o, events)
	if err != nil {
		return err
	}
	fmt.Fprint(a.Out, printableLines(text))
	return nil
}

func eventsOf(ctx context.Context, c *client.Client, ref spec.Ref) ([]api.Event, error) {
	var events []api.Event
	query := api.EventQuery{Limit: describeEvents, Tenant: ref.Tenant}
	err := c.Events(ctx, query, func(e api.Event) error {
		if e.Object == ref {
			events = append(events, e)
		}
		return nil
	})
	return events, err
}

func description(o *spec.Object, events []api.Event) (string, error) {
	var out strings.Builder
	fmt.Fprintf(&out, "%s\n  phase: %s\n  uid: %s\n  created: %s by %s\n  generation: %d\n",
		o.Ref(), phaseOf(o), o.Metadata.UID, stamp(o.Metadata.CreatedAt), o.Metadata.Source, o.Metadata.Generation)
	if o.Status != nil {
		describeInstance(&out, o.Status.Instance)
		describeConditions(&out, o.Status)
	}
	text, err := spec.Encode(written(o))
	if err != nil {
		return "", err
	}
	out.WriteString("\nas written:\n" + indent(string(text)))
	if len(events) > 0 {
		out.WriteString("\nevents:\n")
	}
	for _, e := range events {
		fmt.Fprintf(&out, "  %s %s: %s\n", stamp(e.At), e.Reason, e.Message)
	}
	return out.String(), nil
}

func describeInstance(out *strings.Builder, in *spec.InstanceStatus) {
	if in == nil {
		return
	}
	for _, line := range []struct{ name, value string }{
		{"address", in.Address},
		{"image digest", in.ImageDigest},
		{"GPUs", strings.Join(in.GPUs, ", ")},
		{"published", strings.Join(in.Published, ", ")},
		{"started", stamp(in.StartedAt)},
		{"last exit", exitText(in.LastExit)},
	} {
		if line.value != "" {
			fmt.Fprintf(out, "  %s: %s\n", line.name, line.value)
		}
	}
	fmt.Fprintf(out, "  pid: %d, restarts: %d\n", in.Pid, in.Restarts)
}

func exitText(e *spec.ExitStatus) string {
	switch {
	case e == nil:
		return ""
	case e.Unknown:
		return "unknown, at " + stamp(e.At)
	case e.OOM:
		return fmt.Sprintf("code %d, out of memory, at %s", e.Code, stamp(e.At))
	}
	return fmt.Sprintf("code %d at %s", e.Code, stamp(e.At))
}

func describeConditions(out *strings.Builder, status *spec.Status) {
	if len(status.Conditions) == 0 {
		return
	}
	out.WriteString("\nconditions:\n")
	for _, c := range status.Conditions {
		fmt.Fprintf(out, "  %s: %t (%s, since %s, generation %d)\n", c.Type, c.Status, c.Reason, stamp(c.Since), c.ObservedGeneration)
		if c.Message != "" {
			fmt.Fprintf(out, "    %s\n", c.Message)
		}
	}
}

func indent(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return "  " + strings.Join(lines, "\n  ") + "\n"
}
