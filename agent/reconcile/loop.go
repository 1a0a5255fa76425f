package reconcile

import (
	"context"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/agent/store"
)

// resync is how often every lane looks at the kernel although nothing
// triggered it: events are hints and may be lost.
const resync = 2 * time.Minute

// Lane keys.
const (
	laneGPUs     = "gpus"
	laneHost     = "host"
	laneGuard    = "guard" // of the host's own table; it has no runs of its own
	laneSweep    = "sweep"
	instanceLane = "instance/"
	vpcLane      = "vpc/"
	tenantLane   = "tenant/"
	laneBeat     = "beat"
)

// Deps is all the loop works with.
type Deps struct {
	Store     *store.Store
	Drivers   Drivers
	Isolation Isolation
	Network   Network
	Shared    Shared
	Metrics   Metrics
	Settings  Settings
	Now       func() time.Time
	Log       *slog.Logger
	// AtStep is called before and after every step is applied; crash tests end the
	// process there. May be nil.
	AtStep func(when string, step plan.Step)
	// Listens says whether something on the host answers on a port. May be nil.
	Listens func(spec.Publish) bool
}

// Loop keeps the host as desired. Make one with New, then Run it once.
type Loop struct {
	Deps
	lanes    *lanes
	changes  *changes
	problems *problems

	// admit serialises what must be decided one after the other: writes of desired
	// state and choices of GPUs.
	admit sync.Mutex

	mu       sync.Mutex
	held     map[spec.UID]bool // instances that keep their GPUs and their place in the network; replaced, never changed
	places   uint64            // counts changes of held
	memory   memory
	suspects map[spec.UID]string // to the run in which an audit failed
	strange  map[spec.UID]bool   // found on the host at the start and not stored
	beat     time.Time           // of the pulse
	pulls    map[spec.UID]*pull  // under way, by the instance they are for
}

// New makes a loop at rest.
func New(d Deps) *Loop {
	l := &Loop{
		Deps: d, held: make(map[spec.UID]bool),
		suspects: make(map[spec.UID]string), strange: make(map[spec.UID]bool), beat: d.Now(),
		pulls: make(map[spec.UID]*pull), problems: newProblems(),
	}
	l.lanes = newLanes(d.Log, l.turn)
	l.changes = newChanges(d.Store, d.Now)
	return l
}

// Run works until ctx is done. Everything on the host stays as it is then:
// tenants do not notice that nobody decides.
func (l *Loop) Run(ctx context.Context) error {
	l.TriggerAll()
	l.lanes.trigger(laneBeat)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { l.lanes.run(ctx); return nil })
	group.Go(func() error { l.resync(ctx); return nil })
	group.Go(func() error { l.meterRounds(ctx); return nil })
	return group.Wait()
}

// Recover comes before Run and before anybody asks: whatever was in force stays
// held until its own lane has looked at it, so that no GPU and no guard is taken
// from a tenant that still runs. That holds for what nobody has stored, too: until
// the sweep has ended it, no GPU is given out, because the ledger may not know
// whose they are.
func (l *Loop) Recover(ctx context.Context) error {
	if err := l.changes.interrupted(); err != nil {
		return err
	}
	instances, err := l.Store.List(spec.KindInstance, "")
	if err != nil {
		return err
	}
	for _, o := range instances {
		l.hold(o.Metadata.UID, true)
	}
	marked, err := l.Shared.Marked(ctx)
	if err != nil {
		l.Log.Warn("not everything that carries the host's mark could be listed", "error", err) // containerd is not up yet
	}
	for uid := range marked.Instances {
		if l.holds(uid) {
			continue
		}
		l.mu.Lock()
		l.strange[uid] = true
		l.mu.Unlock()
		l.hold(uid, true)
	}
	return nil
}

// strangers says whether something that is not stored may still hold GPUs.
func (l *Loop) strangers() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.strange) > 0
}

// resync asks every lane in turn, evenly over the interval: a burst of looks is
// felt by tenants.
func (l *Loop) resync(ctx context.Context) {
	for ctx.Err() == nil {
		keys := append(l.objectLanes(), laneGPUs, laneHost, laneSweep)
		begin := l.Now()
		for i, key := range keys {
			if !pause(ctx, begin.Add(resync*time.Duration(i+1)/time.Duration(len(keys))).Sub(l.Now())) {
				return
			}
			l.lanes.trigger(key)
		}
	}
}

// pause waits, and says whether ctx still holds.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// TriggerAll asks every lane to look again.
func (l *Loop) TriggerAll() {
	for _, key := range append(l.objectLanes(), laneGPUs, laneHost, laneSweep) {
		l.lanes.trigger(key)
	}
}

// objectLanes are the lanes of everything that is stored.
func (l *Loop) objectLanes() []string {
	objects, err := l.Store.All()
	if err != nil {
		l.Log.Error("read desired state", "error", err)
	}
	var keys []string
	for _, o := range objects {
		if lane := laneOf(o); lane != "" {
			keys = append(keys, lane)
		}
	}
	return keys
}

// laneOf is the lane that keeps an object as desired, "" for one that takes effect
// through others'.
func laneOf(o *spec.Object) string {
	switch o.Kind {
	case spec.KindInstance:
		return instanceLane + string(o.Metadata.UID)
	case spec.KindNetwork:
		return vpcLane + string(o.Metadata.UID)
	case spec.KindTenant:
		return tenantLane + string(o.Metadata.UID)
	case spec.KindHost:
		return laneHost
	default:
		return ""
	}
}

// TriggerInstance asks one instance's lane to look again.
func (l *Loop) TriggerInstance(uid spec.UID) { l.lanes.trigger(instanceLane + string(uid)) }

// TriggerHost asks the lane of what all share to look again.
func (l *Loop) TriggerHost() { l.lanes.trigger(laneHost) }

// TriggerObject asks the lanes that a changed object concerns.
func (l *Loop) TriggerObject(o *spec.Object) {
	w, err := l.world()
	if err != nil {
		l.Log.Error("read desired state", "error", err)
		return
	}
	for _, key := range w.concerned(o) {
		l.lanes.trigger(key)
	}
}

// concerned are the lanes that a changed object concerns: those that have to look
// at it again, and those that a plan of the change may not take at their word. A
// VPC comes before the instances in it: they find it at work.
func (d *desired) concerned(o *spec.Object) []string {
	switch o.Kind {
	case spec.KindInstance:
		if at, err := placeOf(o, d.find); err == nil {
			return []string{laneOf(at.vpc), laneOf(o)}
		}
	case spec.KindSecurityGroup, spec.KindSubnet, spec.KindSecret:
		return d.tenantLanes(o.Metadata.Tenant)
	}
	if lane := laneOf(o); lane != "" {
		return []string{lane}
	}
	return nil
}

// tenantLanes are those of a tenant's VPCs, and of its instances that do not run:
// what they lacked may be there now.
func (d *desired) tenantLanes(tenant string) []string {
	var vpcs, standing []string
	for _, o := range d.objects {
		switch {
		case o.Metadata.Tenant != tenant:
		case o.Kind == spec.KindNetwork:
			vpcs = append(vpcs, laneOf(o))
		case o.Kind == spec.KindInstance && (o.Status == nil || o.Status.Phase != spec.PhaseRunning):
			standing = append(standing, laneOf(o))
		}
	}
	return append(vpcs, standing...)
}

// work is one run of a lane.
func (l *Loop) work(ctx context.Context, key string) (time.Duration, error) {
	switch lane, uid, _ := strings.Cut(key, "/"); lane + "/" {
	case instanceLane:
		return l.instance(ctx, spec.UID(uid))
	case vpcLane:
		return 0, l.vpc(ctx, spec.UID(uid))
	case tenantLane:
		return 0, l.tenant(ctx, spec.UID(uid))
	}
	switch key {
	case laneGPUs:
		return l.gpus(ctx)
	case laneBeat:
		return beatPause, l.pulse()
	case laneSweep:
		return 0, l.sweep(ctx)
	default:
		return 0, l.host(ctx)
	}
}

// beatPause is between two beats of the loop's pulse.
const beatPause = 10 * time.Second

// pulse is a lane that does nothing: as long as it runs, lanes turn.
func (l *Loop) pulse() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.beat = l.Now()
	return nil
}

// hold notes whether an instance keeps its GPUs and its endpoint.
func (l *Loop) hold(uid spec.UID, keeps bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[uid] == keeps {
		return
	}
	l.held = maps.Clone(l.held)
	l.places++
	if keeps {
		l.held[uid] = true
	} else {
		delete(l.held, uid)
	}
}

func (l *Loop) holds(uid spec.UID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held[uid]
}

// holders are a copy of those that keep their place.
func (l *Loop) holders() map[spec.UID]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.held)
}
