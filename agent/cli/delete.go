package cli

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/client"
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
			refs, read, err := a.toDelete(cmd.Context(), file, given)
			if err != nil {
				return err
			}
			return a.delete(cmd.Context(), refs, read, "nothing of it stays")
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "the objects' file, folder, or - for standard input")
	return cmd
}

// generations are of objects as they were read. One that was not is 0: any.
type generations map[spec.Ref]uint64

// delete asks and deletes. A name that is wrong is told before the first object
// goes; whoever is asked agrees to what was there then, and nothing newer goes.
func (a *app) delete(ctx context.Context, refs []spec.Ref, read generations, consequence string) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	switch {
	case read != nil:
	case a.asks():
		read, err = readAll(ctx, c, refs)
	default:
		err = a.allThere(ctx, refs)
	}
	if err != nil {
		return err
	}
	if err := a.confirm(ctx, "delete "+list(refs), consequence); err != nil {
		return err
	}
	return a.changeEach(ctx, refs, func(ref spec.Ref) (api.ChangeRef, error) { return c.Delete(ctx, ref, read[ref]) })
}

func readAll(ctx context.Context, c *client.Client, refs []spec.Ref) (generations, error) {
	read := make(generations, len(refs))
	for _, ref := range refs {
		o, err := c.Get(ctx, ref)
		if err != nil {
			return nil, err
		}
		read[ref] = o.Metadata.Generation
	}
	return read, nil
}

// toDelete lists what refers before what is referred to, with the generations that
// the file has.
func (a *app) toDelete(ctx context.Context, file string, given []string) ([]spec.Ref, generations, error) {
	if file == "" {
		kind, err := kindOf(given[0])
		if err != nil {
			return nil, nil, err
		}
		refs, err := a.refs(ctx, kind, given[1:])
		return refs, nil, err
	}
	objects, err := a.readObjects(ctx, file)
	if err != nil {
		return nil, nil, err
	}
	read := make(generations, len(objects))
	var refs []spec.Ref
	for _, kind := range slices.Backward(spec.Kinds()) {
		for _, o := range objects {
			if o.Kind == kind {
				refs = append(refs, o.Ref())
				read[o.Ref()] = o.Metadata.Generation
			}
		}
	}
	return refs, read, nil
}
