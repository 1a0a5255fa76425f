package reconcile

import (
	"context"
	"os"
	"slices"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/agent/store"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// Writing desired state: everything the API or a file asks for passes here, one
// at a time, so that two requests cannot both get the last GPU.

// WriteOptions are how objects are stored.
type WriteOptions struct {
	Source spec.Source
	Actor  string
	DryRun bool
	// ByTenant says that the caller is a tenant, whose published ports are bounded.
	ByTenant bool
	// CreateOnly refuses objects that exist already.
	CreateOnly bool
}

// Written is the outcome for one object. Change is the id of the work under way
// because of it, or empty.
type Written struct {
	store.Applied
	Change string
}

// Write validates objects together with everything that is desired already and
// stores all or none of them.
func (l *Loop) Write(ctx context.Context, objects []*spec.Object, how WriteOptions) ([]Written, error) {
	l.admit.Lock()
	defer l.admit.Unlock()
	return l.write(ctx, objects, nil, how)
}

// write is Write for who holds admit. What is dropped goes in the same decision:
// what it had is there for the others.
func (l *Loop) write(ctx context.Context, objects, drop []*spec.Object, how WriteOptions) ([]Written, error) {
	before, err := l.Store.All()
	if err != nil {
		return nil, err
	}
	if how.CreateOnly {
		if err := refuseExisting(before, objects); err != nil {
			return nil, err
		}
	}
	admission, err := l.admissionFor(ctx, objects, drop)
	if err != nil {
		return nil, err
	}
	admission.Bounded, admission.Ports = how.ByTenant, l.Settings.PublishPorts
	full := l.complete(admission, before, objects)
	applied, err := l.Store.Apply(ctx, how.Source, full, store.ApplyOptions{
		DryRun: how.DryRun, Drop: drop,
		Check: func(after []*spec.Object) error { return admission.Check(before, after) },
	})
	if err != nil || how.DryRun {
		return written(applied, len(objects)), err
	}
	return l.announce(applied, len(objects), how.Actor)
}

// complete gives copies of the objects with everything omitted filled in, and
// puts the tenant and its defaults, which come into being with its first object,
// after the objects asked for.
func (l *Loop) complete(a Admission, before, objects []*spec.Object) []*spec.Object {
	host := hostOf(slices.Concat(objects, before))
	full := make([]*spec.Object, len(objects))
	for i, o := range objects {
		full[i] = o.Clone()
		spec.Default(full[i])
		if o.Kind == spec.KindInstance {
			a.Complete(instanceOf(full[i]), host)
		}
	}
	return append(full, spec.MissingDefaults(slices.Concat(full, before))...)
}

func sameAs(o *spec.Object) func(*spec.Object) bool {
	ref := o.Ref()
	return func(other *spec.Object) bool { return other.Ref() == ref && other.Metadata.DeletedAt == nil }
}

func refuseExisting(before, objects []*spec.Object) error {
	for _, o := range objects {
		if slices.ContainsFunc(before, sameAs(o)) {
			return fault.New(fault.Conflict, "create "+o.Ref().String(), "it exists already").
				WithHint("choose another --name, or gpuhost apply -f to change it")
		}
	}
	return nil
}

func written(applied []store.Applied, n int) []Written {
	out := make([]Written, min(n, len(applied)))
	for i := range out {
		out[i].Applied = applied[i]
	}
	return out
}

// announce opens a change for every object that is new or different and wakes
// the lanes concerned.
func (l *Loop) announce(applied []store.Applied, asked int, actor string) ([]Written, error) {
	out := written(applied, asked)
	for i, a := range applied {
		if a.Change == store.Unchanged {
			continue
		}
		if i >= asked && a.Change == store.Created { // comes into being with them: nobody waits for it
			l.tell(a.Object, verbOf(a.Change), actor)
			l.TriggerObject(a.Object)
			continue
		}
		id, err := l.open(a.Object, verbOf(a.Change), actor)
		if err != nil {
			return out, err
		}
		if i < len(out) {
			out[i].Change = id
		}
	}
	return out, nil
}

func verbOf(a store.Action) string {
	switch a {
	case store.Created:
		return "create"
	case store.Deleted:
		return "delete"
	default:
		return "change"
	}
}

// open begins a change of an object and wakes its lanes. One that nobody can wait
// for is done at once.
func (l *Loop) open(o *spec.Object, verb, actor string) (string, error) {
	l.tell(o, verb, actor)
	if !l.followed(o) {
		l.TriggerObject(o)
		return "", nil
	}
	id, err := l.changes.begin(o, verb, actor)
	l.TriggerObject(o)
	l.interrupt(o)
	return id, err
}

func (l *Loop) tell(o *spec.Object, verb, actor string) {
	e := store.Event{
		At: l.Now(), Type: "normal", Reason: "Written", Message: verb + " of " + o.Ref().String(),
		Object: o.Ref(), UID: o.Metadata.UID, Actor: actor,
	}
	if err := l.Store.AppendEvent(e); err != nil {
		l.Log.Error("write event", "object", o.Ref().String(), "error", err)
	}
}

// admissionFor reads what the host has where instances are among the objects: a
// rule is changed without asking the GPUs.
func (l *Loop) admissionFor(ctx context.Context, objects, drop []*spec.Object) (Admission, error) {
	if !slices.ContainsFunc(objects, isInstance) {
		return Admission{CPUs: l.Settings.CPUs, Memory: l.Settings.Memory, Small: l.Settings.Small}, nil
	}
	return l.admission(ctx, drop)
}

// admission reads what the host has once what is dropped has gone.
func (l *Loop) admission(ctx context.Context, drop []*spec.Object) (Admission, error) {
	have, err := l.Drivers.Observe(ctx)
	if err != nil {
		return Admission{}, err
	}
	held := l.holders()
	for _, o := range drop {
		delete(held, o.Metadata.UID)
	}
	return Admission{
		CPUs: l.Settings.CPUs, Memory: l.Settings.Memory, GPUs: have.Inventory, Entries: promised(have, held), Small: l.Settings.Small,
		Listens: l.Listens,
	}, nil
}

// promised is the ledger as admission sees it: a GPU on its way back from a
// tenant that is gone will be free, one in quarantine will not.
func promised(have drivers.Have, held map[spec.UID]bool) map[gpu.UUID]drivers.Entry {
	out := make(map[gpu.UUID]drivers.Entry)
	for id, e := range have.Entries {
		if e.State == drivers.Quarantined || e.State != drivers.Free && held[e.Owner] {
			out[id] = e
		}
	}
	for _, d := range have.Inventory.Devices {
		if _, there := out[d.UUID]; !there {
			out[d.UUID] = drivers.Entry{GPU: d.UUID, State: drivers.Free, BootID: have.BootID}
		}
	}
	return out
}

// SetState is start, stop and restart: it writes the instance's desired state
// and, for start and restart, a new wish to run it.
func (l *Loop) SetState(ctx context.Context, ref spec.Ref, verb, actor string) (spec.Ref, string, error) {
	o, err := l.Store.Get(ref)
	if err != nil {
		return ref, "", err
	}
	if o.Metadata.Source == spec.SourceFile {
		return ref, "", fault.New(fault.Conflict, verb+" "+ref.String(), "it belongs to a file").
			WithHint("write its state in spec.d, then kill -HUP %d", os.Getpid())
	}
	changed := *o
	in := *instanceOf(o)
	in.State = spec.StateRunning
	switch verb {
	case "stop":
		in.State = spec.StateStopped
	case "restart":
		in.RestartedAt = l.Now().UTC().Format(time.RFC3339Nano)
	case "start":
		if l.over(o) {
			in.RestartedAt = l.Now().UTC().Format(time.RFC3339Nano)
		}
	}
	changed.Spec = &in // the generation stays: a write in between is a conflict
	out, err := l.Write(ctx, []*spec.Object{&changed}, WriteOptions{Source: o.Metadata.Source, Actor: actor})
	if err != nil {
		return ref, "", err
	}
	return ref, out[0].Change, nil
}

// over says whether an instance's run is over, by its own end or by a fence, so
// that a start is a new one.
func (l *Loop) over(o *spec.Object) bool {
	r, err := l.Store.Record(o.Metadata.UID)
	return err == nil && (r.LastExit != nil && r.EndedRun == runOf(o) || r.FencedRun == runOf(o))
}

// Delete asks for an object to go. ifMatch is its generation, 0 for any. What a
// file owns goes with the file.
func (l *Loop) Delete(ref spec.Ref, ifMatch uint64, actor string) (string, error) {
	l.admit.Lock()
	defer l.admit.Unlock()
	o, err := l.Store.Get(ref)
	if err != nil {
		return "", err
	}
	if o.Metadata.Source == spec.SourceFile {
		return "", fault.New(fault.Conflict, "delete "+ref.String(), "it belongs to a file").
			WithHint("take it out of spec.d, then kill -HUP %d", os.Getpid())
	}
	if err := l.refuseUsed(ref); err != nil {
		return "", err
	}
	id, err := l.mark(ref, ifMatch, actor)
	if err == nil && id == "" {
		err = l.sweepObject(o)
	}
	return id, err
}

// mark notes that an object is to go and wakes who takes it away: an instance's
// and a tenant's own lane, the sweep for the rest.
func (l *Loop) mark(ref spec.Ref, ifMatch uint64, actor string) (string, error) {
	o, err := l.Store.MarkDeleted(ref, ifMatch)
	if err != nil {
		return "", err
	}
	return l.open(o, "delete", actor)
}

// sweepObject drops an object that is no instance and no tenant once nothing
// stands on it any more: not even an instance that is being taken down, whose
// network must outlive it.
func (l *Loop) sweepObject(o *spec.Object) error {
	used, err := l.usedBy(o.Ref(), func(*spec.Object) bool { return true })
	if err != nil || used != nil {
		return err // the last user's end triggers the sweep
	}
	if err := l.removeObject(context.Background(), o); err != nil {
		return err
	}
	l.TriggerObject(o)
	return nil
}
