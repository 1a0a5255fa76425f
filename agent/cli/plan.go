package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

func (a *app) planCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "plan [-f FILE]",
		Short: "Print what would change and why; exit code 3 if anything would",
		Long: `Print what would change and why. Exit code 3 if anything would.

What the agent found in order and has heard nothing of since is not looked at again; it looks at
everything by itself every two minutes. gpuhost verify reads all of it from the kernel now.`,
		Args: args(0, 0, "no arguments but -f FILE"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			objects, err := a.objectsOf(cmd.Context(), file)
			if err != nil {
				return err
			}
			return a.plan(cmd.Context(), objects)
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "file, folder, or - for standard input (default: what is stored)")
	return cmd
}

// objectsOf reads the file if one is named; none means what is stored.
func (a *app) objectsOf(ctx context.Context, file string) ([]*spec.Object, error) {
	if file == "" {
		return nil, nil
	}
	return a.readObjects(ctx, file)
}

func (a *app) plan(ctx context.Context, objects []*spec.Object) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	result, err := c.Plan(ctx, objects)
	if err != nil {
		return err
	}
	changing := changingOf(result)
	if a.structured() {
		err = a.show(result, nil, nil)
	} else {
		fmt.Fprint(a.Out, planText(changing))
	}
	if err == nil && len(changing) > 0 {
		return exitCode(fault.ExitNotConverged)
	}
	return err
}

func changingOf(result api.PlanResult) []api.PlannedObject {
	var changing []api.PlannedObject
	for _, one := range result.Objects {
		if !one.Plan.Empty() || len(one.Diffs) > 0 || one.Action == api.ActionCreated {
			changing = append(changing, one)
		}
	}
	return changing
}

// planText is the plan for a person: what is written differently, then the
// steps that follow from it.
func planText(objects []api.PlannedObject) string {
	if len(objects) == 0 {
		return "nothing to change\n"
	}
	var out strings.Builder
	for _, one := range objects {
		fmt.Fprintf(&out, "%s: %s\n", one.Object, headline(one))
		for _, d := range one.Diffs {
			fmt.Fprintf(&out, "  %s\n", diffText(d))
		}
		if !one.Plan.Empty() {
			out.WriteString(one.Plan.Text())
		}
	}
	return printableLines(out.String())
}

func headline(one api.PlannedObject) string {
	switch one.Action {
	case api.ActionCreated:
		return "would be created"
	case api.ActionChanged:
		return "would be changed"
	}
	return "stays as written; the host differs"
}

func diffText(d api.Diff) string {
	switch {
	case d.From == "":
		return "+ " + d.Path + ": " + d.To
	case d.To == "":
		return "- " + d.Path + ": " + d.From
	}
	return "~ " + d.Path + ": " + d.From + " -> " + d.To
}

func (a *app) verifyCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "verify [-f FILE]",
		Short: "Assert that the host is as wanted; exit code 3 if it is not",
		Long: `Assert that the host is as wanted. Exit code 3 if it is not. Everything is read from the kernel
and the runtime now, nothing is taken from what the agent remembers.`,
		Args: args(0, 0, "no arguments but -f FILE"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			objects, err := a.objectsOf(cmd.Context(), file)
			if err != nil {
				return err
			}
			return a.verify(cmd.Context(), objects)
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "file, folder, or - for standard input (default: what is stored)")
	return cmd
}

func (a *app) verify(ctx context.Context, objects []*spec.Object) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	found, err := c.Verify(ctx, objects)
	if err != nil {
		return err
	}
	switch {
	case a.structured():
		err = a.show(api.List[api.Deviation]{Items: found}, nil, nil)
	case len(found) == 0:
		a.say("as wanted")
	default:
		err = a.show(nil, func() []string { return deviating(found) }, func() *table { return deviationTable(found) })
	}
	if err == nil && len(found) > 0 {
		return exitCode(fault.ExitNotConverged)
	}
	return err
}

func deviating(found []api.Deviation) []string {
	names := make([]string, len(found))
	for i, d := range found {
		names[i] = refName(d.Object)
	}
	return names
}

func deviationTable(found []api.Deviation) *table {
	t := newTable("OBJECT", "WHAT", "WANT", "FOUND")
	for _, d := range found {
		t.add(d.Object, d.What, d.Want, cell{d.Found, red})
	}
	return t
}

func (a *app) exportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "export [KIND...]",
		Short: "Print stored objects so that apply takes them again; secrets are redacted",
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.export(cmd.Context(), given)
		},
		ValidArgsFunction: a.completeKinds,
	}
}

func (a *app) export(ctx context.Context, given []string) error {
	kinds := spec.Kinds()
	if len(given) > 0 {
		kinds = nil
		for _, text := range given {
			kind, err := kindOf(text)
			if err != nil {
				return err
			}
			kinds = append(kinds, kind)
		}
	}
	objects, err := a.allOf(ctx, kinds)
	if err != nil {
		return err
	}
	for i, o := range objects {
		objects[i] = written(o)
	}
	if a.output == formatJSON {
		return a.showJSON(objects)
	}
	text, err := spec.Encode(objects...)
	if err != nil {
		return err
	}
	_, err = a.Out.Write(text)
	return fault.Wrap(fault.Internal, "write", err)
}

// allOf lists kinds, leaving out what a tenant may not see.
func (a *app) allOf(ctx context.Context, kinds []spec.Kind) ([]*spec.Object, error) {
	c, err := a.connect()
	if err != nil {
		return nil, err
	}
	var all []*spec.Object
	for _, kind := range kinds {
		objects, err := c.List(ctx, kind, a.tenant)
		if fault.Is(err, fault.Forbidden) && kind == spec.KindHost || fault.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, objects...)
	}
	return all, nil
}

// written is the object as a person would have written it.
func written(o *spec.Object) *spec.Object {
	return &spec.Object{
		APIVersion: o.APIVersion, Kind: o.Kind, Spec: o.Spec,
		Metadata: spec.Metadata{Tenant: o.Metadata.Tenant, Name: o.Metadata.Name, Labels: o.Metadata.Labels},
	}
}
