package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/client"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

func (a *app) getCommand() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:               "get KIND [NAME...]",
		Short:             "List objects",
		Args:              args(1, -1, "a kind and perhaps names"),
		ValidArgsFunction: a.completeKindAndNames,
		RunE: func(cmd *cobra.Command, given []string) error {
			kind, err := kindOf(given[0])
			if err != nil {
				return err
			}
			if watch {
				return a.watchObjects(cmd.Context(), kind, given[1:])
			}
			return a.get(cmd.Context(), kind, given[1:])
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on with every change until interrupted")
	return cmd
}

func (a *app) get(ctx context.Context, kind spec.Kind, names []string) error {
	objects, err := a.objects(ctx, kind, names)
	if err != nil {
		return err
	}
	if len(objects) == 0 && !a.structured() {
		a.say("no %s", kind.Plural())
		return nil
	}
	if len(names) == 1 && a.structured() {
		return a.show(objects[0], nil, nil)
	}
	return a.show(api.List[*spec.Object]{Items: objects}, func() []string { return namesOf(objects) },
		func() *table { return a.objectTable(kind, objects) })
}

// objects reads the ones named, or all of the kind that the caller may see.
func (a *app) objects(ctx context.Context, kind spec.Kind, names []string) ([]*spec.Object, error) {
	c, err := a.connect()
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return c.List(ctx, kind, a.tenant)
	}
	refs, err := a.refs(ctx, kind, names)
	if err != nil {
		return nil, err
	}
	objects := make([]*spec.Object, 0, len(refs))
	for _, ref := range refs {
		o, err := c.Get(ctx, ref)
		if err != nil {
			return nil, err
		}
		objects = append(objects, o)
	}
	return objects, nil
}

func namesOf(objects []*spec.Object) []string {
	names := make([]string, len(objects))
	for i, o := range objects {
		names[i] = nameOf(o)
	}
	return names
}

// watchObjects prints the list and then an object again at each of its events.
func (a *app) watchObjects(ctx context.Context, kind spec.Kind, names []string) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	last, err := lastEvent(ctx, c, a.tenant)
	if err != nil {
		return err
	}
	refs, err := a.refs(ctx, kind, names)
	if err != nil {
		return err
	}
	objects, err := a.objects(ctx, kind, names)
	if err != nil {
		return err
	}
	first := a.objectTable(kind, objects)
	err = a.show(api.List[*spec.Object]{Items: objects}, func() []string { return namesOf(objects) }, func() *table { return first })
	if err != nil {
		return err
	}
	err = c.FollowEvents(ctx, api.EventQuery{After: last, Tenant: a.tenant}, func(e api.Event) error {
		if e.Object.Kind != kind || len(refs) > 0 && !slices.Contains(refs, e.Object) {
			return nil
		}
		gone, err := a.getAgain(ctx, c, e.Object, first)
		if gone && len(refs) > 0 {
			if refs = slices.DeleteFunc(refs, func(ref spec.Ref) bool { return ref == e.Object }); len(refs) == 0 {
				return errWatched
			}
		}
		return err
	}, a.sayLost)
	if errors.Is(err, errWatched) {
		return nil
	}
	return err
}

// errWatched ends a watch of named objects when the last of them is gone.
var errWatched = errors.New("nothing is left to watch")

// lastEvent is the newest sequence number, 0 when there is none.
func lastEvent(ctx context.Context, c *client.Client, tenant string) (uint64, error) {
	var last uint64
	err := c.Events(ctx, api.EventQuery{Limit: 1, Tenant: tenant}, func(e api.Event) error {
		last = e.Seq
		return nil
	})
	return last, err
}

// getAgain prints one object below the first table, in its columns.
func (a *app) getAgain(ctx context.Context, c *client.Client, ref spec.Ref, first *table) (gone bool, err error) {
	o, err := c.Get(ctx, ref)
	if fault.Is(err, fault.NotFound) {
		a.say("%s is deleted", ref)
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if a.structured() || a.output == formatName {
		return false, a.show(o, func() []string { return []string{nameOf(o)} }, nil)
	}
	first.writeRows(a.Out, a.painter(a.Out), a.objectTable(ref.Kind, []*spec.Object{o}).rows)
	return false, nil
}

// objectTable has columns of its own for instances; the other kinds share theirs.
func (a *app) objectTable(kind spec.Kind, objects []*spec.Object) *table {
	if kind == spec.KindInstance {
		return a.instanceTable(objects)
	}
	t := newTable("TENANT", "NAME", "PHASE", "AGE", "SUMMARY")
	if a.wide() {
		t.head = append(t.head, "UID", "GENERATION", "SOURCE")
	}
	for _, o := range objects {
		row := []any{o.Metadata.Tenant, o.Metadata.Name, phaseCell(o), ageOf(o.Metadata.CreatedAt), summary(o.Spec)}
		if a.wide() {
			row = append(row, o.Metadata.UID, o.Metadata.Generation, o.Metadata.Source)
		}
		t.add(row...)
	}
	return t
}

func (a *app) instanceTable(objects []*spec.Object) *table {
	t := newTable("TENANT", "NAME", "PHASE", "GPUS", "ADDRESS", "AGE", "IMAGE")
	if a.wide() {
		t.head = append(t.head, "CPUS", "MEMORY", "PUBLISHED", "RESTARTS", "PID", "UID", "GENERATION")
	}
	for _, o := range objects {
		in, ok := o.Spec.(*spec.InstanceSpec)
		if !ok {
			continue
		}
		status := instanceStatus(o)
		row := []any{o.Metadata.Tenant, o.Metadata.Name, phaseCell(o), gpusText(in.GPUs), status.Address, ageOf(o.Metadata.CreatedAt), in.Image}
		if a.wide() {
			row = append(row, in.Resources.CPUs, in.Resources.Memory, publishText(in.Publish), status.Restarts,
				status.Pid, o.Metadata.UID, o.Metadata.Generation)
		}
		t.add(row...)
	}
	return t
}

func instanceStatus(o *spec.Object) spec.InstanceStatus {
	if o.Status == nil || o.Status.Instance == nil {
		return spec.InstanceStatus{}
	}
	return *o.Status.Instance
}

func gpusText(r spec.GPURequest) string {
	switch {
	case r.Count == 0:
		return ""
	case r.MIG != "":
		return fmt.Sprintf("%d mig:%s", r.Count, r.MIG)
	}
	return fmt.Sprint(r.Count)
}

func publishText(ports []spec.Publish) string {
	texts := make([]string, len(ports))
	for i, p := range ports {
		texts[i] = p.String()
	}
	return strings.Join(texts, ",")
}

func phaseOf(o *spec.Object) spec.Phase {
	switch {
	case o.Metadata.DeletedAt != nil:
		return "Deleting"
	case o.Status == nil:
		return ""
	}
	return o.Status.Phase
}

func phaseCell(o *spec.Object) cell {
	phase := phaseOf(o)
	return cell{string(phase), phaseColour(phase)}
}

func phaseColour(phase spec.Phase) colour {
	switch phase {
	case spec.PhaseRunning:
		return green
	case spec.PhaseFailed, spec.PhaseFenced, spec.PhaseUnknown:
		return red
	case spec.PhaseStopped, "":
		return plain
	}
	return yellow
}

// summary is what one wants to see of a kind's specification in one line.
func summary(s spec.Spec) string {
	switch s := s.(type) {
	case *spec.NetworkSpec:
		return s.CIDR
	case *spec.SubnetSpec:
		return s.CIDR + " in " + s.Network
	case *spec.SecurityGroupSpec:
		return fmt.Sprintf("%d in, %d out", len(s.Ingress), len(s.Egress))
	case *spec.SecretSpec:
		return fmt.Sprintf("%d keys", len(s.Data))
	case *spec.TenantSpec:
		return quotaText(s.Quota)
	}
	return ""
}

func quotaText(q spec.QuotaSpec) string {
	var parts []string
	if q.Instances != nil {
		parts = append(parts, fmt.Sprintf("instances %d", *q.Instances))
	}
	if q.GPUs != nil {
		parts = append(parts, fmt.Sprintf("gpus %d", *q.GPUs))
	}
	if q.CPUs != nil {
		parts = append(parts, fmt.Sprintf("cpus %v", *q.CPUs))
	}
	if q.Memory != nil {
		parts = append(parts, fmt.Sprintf("memory %v", *q.Memory))
	}
	if len(parts) == 0 {
		return "no quota"
	}
	return strings.Join(parts, ", ")
}
