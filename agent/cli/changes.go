package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gpuhost/gpuhost/agent/api"
)

func (a *app) changesCommand() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "changes [ID]",
		Short: "Work that was done or is under way; with ID, its steps and why",
		Args:  args(0, 1, "at most one id"),
		RunE: func(cmd *cobra.Command, given []string) error {
			if len(given) == 0 {
				return a.listChanges(cmd.Context())
			}
			if follow {
				return a.finish(cmd.Context(), api.ChangeRef{ID: given[0]})
			}
			return a.showChange(cmd.Context(), given[0])
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "wait until it has ended, showing its steps")
	return cmd
}

func (a *app) listChanges(ctx context.Context) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	changes, err := c.Changes(ctx, api.ChangeQuery{Limit: latest, Tenant: a.tenant})
	if err != nil {
		return err
	}
	return a.show(api.List[api.Change]{Items: changes}, func() []string {
		ids := make([]string, len(changes))
		for i, change := range changes {
			ids[i] = change.ID
		}
		return ids
	}, func() *table {
		t := newTable("ID", "AT", "OBJECT", "VERB", "STATE", "BY", "ERROR")
		for _, change := range changes {
			t.add(change.ID, stamp(change.At), change.Object, change.Verb, changeCell(change.State), change.Actor, change.Error)
		}
		return t
	})
}

func changeCell(state api.ChangeState) cell {
	colours := map[api.ChangeState]colour{api.ChangeDone: green, api.ChangeFailed: red, api.ChangeRunning: yellow}
	return cell{string(state), colours[state]}
}

func (a *app) showChange(ctx context.Context, id string) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	change, err := c.Change(ctx, id)
	if err != nil {
		return err
	}
	if !a.structured() && a.output != formatName {
		a.sayChange(change)
	}
	return a.show(change, func() []string { return []string{change.ID} }, func() *table { return stepTable(change) })
}

// sayChange is the talk around the table of steps.
func (a *app) sayChange(c api.Change) {
	a.say("%s %s by %s at %s: %s", c.Verb, printable(c.Object.String()), printable(c.Actor), stamp(c.At), c.State)
	if c.Error != "" {
		a.say("error: %s", printable(c.Error))
	}
	if c.Hint != "" {
		a.say("hint: %s", printable(c.Hint))
	}
}

func stepTable(c api.Change) *table {
	t := newTable("STEP", "STATE", "TOOK", "WHY")
	for _, step := range c.Steps {
		took := ""
		if step.Duration > 0 {
			took = time.Duration(step.Duration).Round(time.Millisecond).String()
		}
		why := step.Why
		if step.Error != "" {
			why += ": " + step.Error
		}
		text := stepText(step)
		if step.State == api.ChangeRunning {
			text += strings.TrimRight(bar(step.Progress), " ")
		}
		t.add(text, changeCell(step.State), took, why)
	}
	return t
}
