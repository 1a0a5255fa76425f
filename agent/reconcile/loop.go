package reconcile

import (
	"context"
	"log/slog"
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
}

// Loop keeps the host as desired. Make one with New, then Run it once.
type Loop struct {
	Deps
	lanes   *lanes
	changes *changes

	// admit serialises what must be decided one after the other: writes of desired
	// state and choices of GPUs.
	admit sync.Mutex

	mu       sync.Mutex
	held     map[spec.UID]bool   // instances that keep their GPUs and their place in the network
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
		pulls: make(map[spec.UID]*pull),
	}
	l.lanes = newLanes(d.Log, l.work)
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
	l.mu.Lock()
	defer l.mu.Unlock()
	for uid := range marked.Instances {
		if !l.held[uid] {
			l.held[uid], l.strange[uid] = true, true
		}
	}
	return nil
}

// strangers says whether something that is not stored may still hold GPUs.
func (l *Loop) strangers() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.strange) > 0
}

func (l *Loop) resync(ctx context.Context) {
	tick := time.NewTicker(resync)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			l.TriggerAll()
		}
	}
}

// TriggerAll asks every lane to look again.
func (l *Loop) TriggerAll() {
	objects, err := l.Store.All()
	if err != nil {
		l.Log.Error("read desired state", "error", err)
		return
	}
	for _, o := range objects {
		l.TriggerObject(o)
	}
	l.lanes.trigger(laneGPUs)
	l.lanes.trigger(laneHost)
	l.lanes.trigger(laneSweep)
}

// TriggerInstance asks one instance's lane to look again.
func (l *Loop) TriggerInstance(uid spec.UID) { l.lanes.trigger(instanceLane + string(uid)) }

// TriggerHost asks the lane of what all share to look again.
func (l *Loop) TriggerHost() { l.lanes.trigger(laneHost) }

// TriggerObject asks the lanes that a changed object concerns.
func (l *Loop) TriggerObject(o *spec.Object) {
	switch o.Kind {
	case spec.KindInstance:
		l.TriggerInstance(o.Metadata.UID)
		if vpc, err := l.vpcObject(o); err == nil {
			l.lanes.trigger(vpcLane + string(vpc.Metadata.UID))
		}
	case spec.KindNetwork:
		l.lanes.trigger(vpcLane + string(o.Metadata.UID))
	case spec.KindSecurityGroup, spec.KindSubnet, spec.KindSecret:
		l.triggerVPCs(o.Metadata.Tenant)
		l.triggerStanding(o.Metadata.Tenant)
	case spec.KindTenant:
		l.lanes.trigger(tenantLane + string(o.Metadata.UID))
	case spec.KindHost:
		l.lanes.trigger(laneHost)
	}
}

// triggerStanding wakes a tenant's instances that do not run: what they lacked may
// be there now.
func (l *Loop) triggerStanding(tenant string) {
	instances, err := l.Store.List(spec.KindInstance, tenant)
	if err != nil {
		l.Log.Error("list instances", "tenant", tenant, "error", err)
		return
	}
	for _, o := range instances {
		if o.Status == nil || o.Status.Phase != spec.PhaseRunning {
			l.TriggerInstance(o.Metadata.UID)
		}
	}
}

func (l *Loop) triggerVPCs(tenant string) {
	networks, err := l.Store.List(spec.KindNetwork, tenant)
	if err != nil {
		l.Log.Error("list networks", "tenant", tenant, "error", err)
		return
	}
	for _, n := range networks {
		l.lanes.trigger(vpcLane + string(n.Metadata.UID))
	}
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

func (l *Loop) holders() map[spec.UID]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[spec.UID]bool, len(l.held))
	for uid := range l.held {
		out[uid] = true
	}
	return out
}
