package reconcile

import (
	"context"
	"maps"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/drivers/gpu"
	"github.com/gpuhost/gpuhost/network"
)

// world is what a lane decides from: the objects that are desired, who holds a
// place, and how choices are made. A preview has a world that is not stored.
type world struct {
	*desired
	held   map[spec.UID]bool // only read
	claims *claimer
	// promised are the GPUs that a preview has given out already.
	promised map[gpu.UUID]drivers.Entry
}

// desired are the objects of one moment, found by name. Many may read it.
type desired struct {
	objects []*spec.Object
	byRef   map[spec.Ref]*spec.Object
}

func indexed(objects []*spec.Object) *desired {
	d := &desired{objects: objects, byRef: make(map[spec.Ref]*spec.Object, len(objects))}
	for _, o := range objects {
		d.byRef[o.Ref()] = o
	}
	return d
}

func (d *desired) find(ref spec.Ref) (*spec.Object, error) {
	if o := d.byRef[ref]; o != nil {
		return o, nil
	}
	return nil, fault.New(fault.NotFound, "find "+ref.String(), "there is none").WithHint("gpuhost get %s", ref.Kind.Plural())
}

// moment is what all that is drawn from objects, claims and places hangs on.
type moment struct {
	revision uint64 // of the store
	places   uint64 // counts changes of who holds one
}

// memory keeps what was drawn at a moment for those who come at the same: on a
// host at rest that is everybody.
type memory struct {
	moment  moment
	desired *desired
	wants   map[spec.UID]drawn
}

// drawn is what a VPC should hold, by its object.
type drawn struct {
	object *spec.Object
	vpc    *network.VPC
}

// world is the real one, as it is now.
func (l *Loop) world() (world, error) {
	at, held := l.now()
	var d *desired
	l.recall(at, func(m memory) { d = m.desired })
	if d == nil {
		objects, err := l.Store.All()
		if err != nil {
			return world{}, err
		}
		d = indexed(objects)
		l.remember(at, func(m *memory) { m.desired = d })
	}
	return world{desired: d, held: held, claims: l.committing()}, nil
}

// now is asked for before anything is read: what is read later is at least as new.
func (l *Loop) now() (moment, map[spec.UID]bool) {
	revision := l.Store.Revision()
	l.mu.Lock()
	defer l.mu.Unlock()
	return moment{revision: revision, places: l.places}, l.held
}

func (l *Loop) recall(at moment, read func(memory)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.memory.moment == at {
		read(l.memory)
	}
}

func (l *Loop) remember(at moment, add func(*memory)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.memory.moment != at || l.memory.wants == nil {
		l.memory = memory{moment: at, wants: make(map[spec.UID]drawn)}
	}
	add(&l.memory)
}

// wantVPC is what the VPC should hold now; nil when no instance has a place in
// it. Many read what it gives.
func (l *Loop) wantVPC(ctx context.Context, o *spec.Object) (*network.VPC, error) {
	at, _ := l.now()
	var known drawn
	l.recall(at, func(m memory) { known = m.wants[o.Metadata.UID] })
	if known.object == o {
		return known.vpc, nil
	}
	w, err := l.world()
	if err != nil {
		return nil, err
	}
	vpc, err := l.vpcIn(ctx, o, w)
	if err == nil {
		l.remember(at, func(m *memory) { m.wants[o.Metadata.UID] = drawn{object: o, vpc: vpc} })
	}
	return vpc, err
}

// entriesFor is the ledger as an instance of a preview sees it. A GPU in hand-over
// will be free: a lane waits for it, a preview need not. What the preview gave to
// others is theirs, and what the instance has is its own even where it goes.
func (w world) entriesFor(uid spec.UID, have drivers.Have) map[gpu.UUID]drivers.Entry {
	out := promised(have, w.held)
	maps.Copy(out, w.promised)
	for id, e := range have.Entries {
		if e.Owner == uid && e.State != drivers.Free {
			out[id] = e
		}
	}
	return out
}
