package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// verb is a command that does one thing to instances.
type verb struct {
	name     api.Verb
	short    string
	disturbs string // what it does to a running tenant, "" for nothing
}

const disturbsStop = "its processes are stopped"

func verbs() []verb {
	return []verb{
		{api.VerbStart, "Start stopped instances", ""},
		{api.VerbStop, "Stop instances; disk and address stay, GPUs go back", disturbsStop},
		{api.VerbRestart, "Stop instances and start them again", disturbsStop},
	}
}

func (a *app) verbCommands() []*cobra.Command {
	var commands []*cobra.Command
	for _, v := range verbs() {
		commands = append(commands, a.verbCommand(v))
	}
	return commands
}

func (a *app) verbCommand(v verb) *cobra.Command {
	return &cobra.Command{
		Use:               string(v.name) + " NAME...",
		Short:             v.short,
		Args:              args(1, -1, "the name of an instance"),
		ValidArgsFunction: a.completeNames(spec.KindInstance),
		RunE: func(cmd *cobra.Command, names []string) error {
			return a.eachInstance(cmd.Context(), names, v.disturbs, func(ref spec.Ref) (api.ChangeRef, error) {
				c, err := a.connect()
				if err != nil {
					return api.ChangeRef{}, err
				}
				return c.Verb(cmd.Context(), ref, v.name)
			}, string(v.name))
		},
	}
}

// eachInstance asks once for all, does the work to each, waits, and prints the
// names. What can be checked is checked before the first is touched.
func (a *app) eachInstance(ctx context.Context, names []string, disturbs string, do func(spec.Ref) (api.ChangeRef, error), what string) error {
	refs, err := a.refs(ctx, spec.KindInstance, names)
	if err != nil {
		return err
	}
	if err := a.allThere(ctx, refs); err != nil {
		return err
	}
	if disturbs != "" {
		if err := a.confirm(ctx, what+" "+list(refs), disturbs); err != nil {
			return err
		}
	}
	return a.changeEach(ctx, refs, do)
}

// allThere tells of a wrong name among several before the first is touched.
func (a *app) allThere(ctx context.Context, refs []spec.Ref) error {
	if len(refs) == 1 {
		return nil // the work itself tells
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	_, err = readAll(ctx, c, refs)
	return err
}

// changeEach does the work to every object, also after one refused, waits for
// what began, and prints the names of those that were accepted.
func (a *app) changeEach(ctx context.Context, refs []spec.Ref, do func(spec.Ref) (api.ChangeRef, error)) error {
	changes := make([]api.ChangeRef, 0, len(refs))
	var failures []error
	for _, ref := range refs {
		change, err := do(ref)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		changes = append(changes, change)
	}
	failures = append(failures, a.finish(ctx, changes...))
	if !a.noWait && ctx.Err() == nil {
		failures = append(failures, a.showChanges(changes, func(c api.ChangeRef) string { return refName(c.Object) }))
	}
	return a.firstOf(failures)
}

func (a *app) rmCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "rm NAME...",
		Short:             "Delete instances with their disks",
		Args:              args(1, -1, "the name of an instance"),
		ValidArgsFunction: a.completeNames(spec.KindInstance),
		RunE: func(cmd *cobra.Command, names []string) error {
			refs, err := a.refs(cmd.Context(), spec.KindInstance, names)
			if err != nil {
				return err
			}
			return a.delete(cmd.Context(), refs, nil, "its processes are stopped and its disk is deleted")
		},
	}
}

func refName(ref spec.Ref) string {
	if ref.Tenant == "" {
		return ref.Name
	}
	return ref.Tenant + "/" + ref.Name
}

func nameOf(o *spec.Object) string { return refName(o.Ref()) }

func list(refs []spec.Ref) string {
	text := ""
	for i, ref := range refs {
		if i > 0 {
			text += ", "
		}
		text += ref.String()
	}
	return text
}
