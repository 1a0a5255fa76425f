package cli

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/client"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
)

func (a *app) applyCommand() *cobra.Command {
	var file string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Store objects, all or none, and let the host follow",
		Args:  args(0, 0, "no arguments but -f FILE"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return fault.New(fault.Invalid, cmd.CommandPath(), "wants -f FILE").WithHint("%s --help", cmd.CommandPath())
			}
			return a.apply(cmd.Context(), file, dryRun)
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "file, folder, or - for standard input")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "validate and compare, store nothing")
	return cmd
}

func (a *app) apply(ctx context.Context, file string, dryRun bool) error {
	objects, err := a.readObjects(ctx, file)
	if err != nil {
		return err
	}
	if len(objects) == 0 {
		return fault.New(fault.Invalid, "apply "+file, "there are no objects in it")
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	if !dryRun {
		if err := a.confirmDisruption(ctx, c, objects); err != nil {
			return err
		}
	}
	result, err := c.Apply(ctx, api.ApplyRequest{Objects: objects, DryRun: dryRun})
	if err != nil {
		return err
	}
	if !a.noWait {
		if err := a.showApplied(result, dryRun); err != nil {
			return err
		}
	}
	return a.finish(ctx, result.Changes...)
}

func (a *app) showApplied(result api.ApplyResult, dryRun bool) error {
	if a.structured() {
		return a.show(result, nil, nil)
	}
	for _, one := range result.Objects {
		if a.output == formatName {
			fmt.Fprintln(a.Out, nameOf(one.Object))
			continue
		}
		action := string(one.Action)
		if dryRun && one.Action != api.ActionUnchanged {
			action = "would be " + action
		}
		fmt.Fprintf(a.Out, "%s %s\n", one.Object.Ref(), action)
	}
	return nil
}

// confirmDisruption asks when the plan disturbs somebody who runs already.
func (a *app) confirmDisruption(ctx context.Context, c *client.Client, objects []*spec.Object) error {
	if a.yes {
		return nil
	}
	planned, err := c.Plan(ctx, objects)
	if err != nil {
		return err
	}
	for _, one := range planned.Objects {
		for _, step := range one.Plan.Steps {
			if step.Risk == plan.RiskNone || step.Risk == "" {
				continue
			}
			if err := a.confirm(ctx, "apply "+one.Object.String(), fmt.Sprintf("%s %s %s: %s", step.Room, step.Verb, step.Risk, step.Why)); err != nil {
				return err
			}
			break
		}
	}
	return nil
}

// readObjects reads a file, a folder or standard input, and gives objects
// without a tenant the own one.
func (a *app) readObjects(ctx context.Context, file string) ([]*spec.Object, error) {
	objects, err := a.decodeObjects(ctx, file)
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		if o.Metadata.Tenant != "" || !o.Kind.Tenanted() {
			continue
		}
		if o.Metadata.Tenant, err = a.ownTenant(ctx); err != nil {
			return nil, err
		}
	}
	return objects, nil
}

func (a *app) decodeObjects(ctx context.Context, file string) ([]*spec.Object, error) {
	if file == "-" {
		text, err := patiently(ctx, func() ([]byte, error) { return io.ReadAll(io.LimitReader(a.In, spec.MaxDocument+1)) })
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, "read standard input", err)
		}
		return spec.Decode("stdin", text)
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, readError(file, err)
	}
	if info.IsDir() {
		return spec.DecodeDir(os.DirFS(file))
	}
	opened, err := os.Open(file)
	if err != nil {
		return nil, readError(file, err)
	}
	defer opened.Close()
	text, err := io.ReadAll(io.LimitReader(opened, spec.MaxDocument+1))
	if err != nil {
		return nil, readError(file, err)
	}
	return spec.Decode(file, text)
}

// readError says why without the system call's name.
func readError(file string, err error) error {
	if inner, ok := err.(*os.PathError); ok {
		err = inner.Err
	}
	return fault.Wrap(fault.Invalid, "read "+file, err)
}
