package cli

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/gpuhost/gpuhost/agent/spec"
)

func (a *app) deleteCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:               "delete KIND NAME... | -f FILE",
		Short:             "Delete objects by name, or all that a file holds",
		ValidArgsFunction: a.completeKindAndNames,
		Args: func(cmd *cobra.Command, given []string) error {
			if file != "" {
				return args(0, 0, "no names beside -f")(cmd, given)
			}
			return args(2, -1, "a kind and names, or -f FILE")(cmd, given)
		},
		RunE: func(cmd *cobra.Command, given []string) error {
			refs, err := a.toDelete(cmd.Context(), file, given)
			if err != nil {
				return err
			}
			if err := a.confirm("delete "+list(refs), "nothing of it stays"); err != nil {
				return err
			}
			return a.changeEach(cmd.Context(), refs, a.deleter(cmd.Context()))
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "the objects' file, folder, or - for standard input")
	return cmd
}

// toDelete lists what refers before what is referred to.
func (a *app) toDelete(ctx context.Context, file string, given []string) ([]spec.Ref, error) {
	if file == "" {
		kind, err := kindOf(given[0])
		if err != nil {
			return nil, err
		}
		return a.refs(ctx, kind, given[1:])
	}
	objects, err := a.readObjects(ctx, file)
	if err != nil {
		return nil, err
	}
	var refs []spec.Ref
	for _, kind := range slices.Backward(spec.Kinds()) {
		for _, o := range objects {
			if o.Kind == kind {
				refs = append(refs, o.Ref())
			}
		}
	}
	return refs, nil
}
