// Package apitest is a backend in memory for tests of what stands before it:
// the API, its client and the command line. It keeps objects, makes changes and
// events of writes, and fails where a test says so. Its clock stands still.
package apitest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// Now is the time of everything that happens in the backend.
func Now() time.Time { return time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC) }

// Backend is the fake. Fields are set before it is served; methods may be
// called at any time.
type Backend struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every change of the fields below
	objects map[spec.Ref]*spec.Object
	changes []api.Change
	events  []api.Event
	images  []api.Image
	fail    map[string]error
	held    bool
	follows []string // "events", or a change's id

	Planned    []api.PlannedObject
	Deviations []api.Deviation
	Devices    []api.GPU
	Wires      []gpu.Link
	Machine    api.HostStatus
	Reports    []api.AuditReport
	Checks     []api.CheckResult
	Settings   []api.Setting
	Waiting    []string // for a restart, after a reload
	Broken     []api.SimRequest
	Log        string // of every instance
}

// New makes an empty backend.
func New() *Backend {
	return &Backend{changed: make(chan struct{}), objects: make(map[spec.Ref]*spec.Object), fail: make(map[string]error)}
}

// API is the backend as the server wants it.
func (b *Backend) API() api.Backend {
	return api.Backend{Objects: b, Planner: b, Instances: b, Images: imageStore{b}, Host: b, History: b}
}

// Fail lets a method, by its name, answer with an error; nil heals it.
func (b *Backend) Fail(method string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail[method] = err
}

// Hold keeps new changes running until it is called with false.
func (b *Backend) Hold(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held = on
	for i := range b.changes {
		if c := &b.changes[i]; !on && !c.State.Ended() {
			b.end(c)
		}
	}
	b.wake()
}

// Followed waits until somebody follows the events ("events") or a change (its id).
func (b *Backend) Followed(ctx context.Context, what string) error {
	for {
		b.mu.Lock()
		there, changed := slices.Contains(b.follows, what), b.changed
		b.mu.Unlock()
		if there {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

func (b *Backend) follow(what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.follows = append(b.follows, what)
	b.wake()
}

// Find replaces what plan and verify answer.
func (b *Backend) Find(planned []api.PlannedObject, deviations []api.Deviation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Planned, b.Deviations = planned, deviations
}

// Put stores an object as it is.
func (b *Backend) Put(o *spec.Object) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.objects[o.Ref()] = o
}

// AddChange stores a change as it is.
func (b *Backend) AddChange(c api.Change) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changes = append(b.changes, c)
	b.wake()
}

// AddEvent numbers an event and stores it.
func (b *Backend) AddEvent(e api.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.event(e)
	b.wake()
}

// AddImage stores an image.
func (b *Backend) AddImage(i api.Image) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.images = append(b.images, i)
}

// wake tells followers that something is new.
func (b *Backend) wake() {
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *Backend) event(e api.Event) {
	e.Seq, e.At = uint64(len(b.events)+1), Now()
	b.events = append(b.events, e)
}

// begin makes a change of two steps, ended unless changes are held.
func (b *Backend) begin(who api.Caller, ref spec.Ref, verb string) api.ChangeRef {
	c := api.Change{
		ID: fmt.Sprintf("c%d", len(b.changes)+1), At: Now(), Actor: who.Name, Object: ref, Verb: verb, State: api.ChangeRunning,
		Steps: []api.ChangeStep{
			{ID: "isolation/prepare " + ref.Name, Title: ref.String(), Why: "it is wanted", State: api.ChangeDone, StartedAt: Now()},
			{ID: "isolation/" + verb + " " + ref.Name, Title: ref.String(), Why: "it is wanted", State: api.ChangeRunning, StartedAt: Now(),
				Progress: &plan.Progress{Done: 512 << 10, Total: 1 << 20, Unit: "bytes"}},
		},
	}
	if err := b.fail["Change"]; err != nil {
		c.State, c.Error, c.Code, c.Hint = api.ChangeFailed, err.Error(), string(fault.KindOf(err)), fault.HintOf(err)
		c.Steps[1].State, c.Steps[1].Error = api.ChangeFailed, err.Error()
	} else if !b.held {
		b.end(&c)
	}
	b.changes = append(b.changes, c)
	b.event(api.Event{Type: "normal", Reason: "Accepted", Message: verb, Object: ref, Actor: who.Name})
	b.wake()
	return api.ChangeRef{ID: c.ID, Object: ref}
}

func (b *Backend) end(c *api.Change) {
	c.State = api.ChangeDone
	c.Steps = slices.Clone(c.Steps)
	for i := range c.Steps {
		c.Steps[i].State = api.ChangeDone
		c.Steps[i].Progress = nil
	}
}

// Apply implements api.Objects.
func (b *Backend) Apply(_ context.Context, who api.Caller, objects []*spec.Object, how api.ApplyOptions) (api.ApplyResult, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.fail["Apply"]; err != nil {
		return api.ApplyResult{}, err
	}
	for _, o := range objects {
		if err := b.admit(o, how); err != nil {
			return api.ApplyResult{}, err
		}
	}
	var result api.ApplyResult
	for _, o := range objects {
		stored, action := b.stored(o)
		result.Objects = append(result.Objects, api.Applied{Object: stored, Action: action})
		if how.DryRun {
			continue
		}
		b.objects[o.Ref()] = stored
		if o.Kind == spec.KindInstance {
			result.Changes = append(result.Changes, b.begin(who, o.Ref(), "start"))
		}
	}
	return result, nil
}

func (b *Backend) admit(o *spec.Object, how api.ApplyOptions) error {
	have := b.objects[o.Ref()]
	if have != nil && how.CreateOnly {
		return fault.New(fault.Conflict, "create "+o.Ref().String(), "it exists already").WithHint("gpuhost rm %s", o.Metadata.Name)
	}
	if read := cmp.Or(how.IfMatch, o.Metadata.Generation); read != 0 && (have == nil || have.Metadata.Generation != read) {
		return fault.New(fault.Conflict, "write "+o.Ref().String(), "another writer was faster")
	}
	return nil
}

func (b *Backend) stored(o *spec.Object) (*spec.Object, api.Action) {
	stored, action := *o, api.ActionCreated
	stored.Metadata.Generation = 1
	if have := b.objects[o.Ref()]; have != nil {
		stored.Metadata.Generation, action = have.Metadata.Generation+1, api.ActionChanged
	}
	stored.Metadata.UID = "a1b2c3d4"
	stored.Metadata.Source = spec.SourceAPI
	stored.Metadata.CreatedAt = time.Now().Add(-73 * time.Hour) // shown as 3d whenever the test runs
	stored.Status = &spec.Status{ObservedGeneration: stored.Metadata.Generation, Phase: spec.PhaseRunning}
	if o.Kind == spec.KindInstance {
		stored.Status.Instance = &spec.InstanceStatus{Address: "10.0.1.2", Pid: 4242}
	}
	return &stored, action
}

// Get implements api.Objects.
func (b *Backend) Get(_ context.Context, ref spec.Ref) (*spec.Object, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.fail["Get"]; err != nil {
		return nil, err
	}
	if o := b.objects[ref]; o != nil {
		return o, nil
	}
	return nil, fault.New(fault.NotFound, ref.String(), "there is none").WithHint("gpuhost get %s", ref.Kind.Plural())
}

// List implements api.Objects.
func (b *Backend) List(_ context.Context, kind spec.Kind, tenant string) ([]*spec.Object, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []*spec.Object
	for ref, o := range b.objects {
		if ref.Kind == kind && (tenant == "" || ref.Tenant == tenant) {
			found = append(found, o)
		}
	}
	slices.SortFunc(found, func(x, y *spec.Object) int {
		return cmp.Or(cmp.Compare(x.Metadata.Tenant, y.Metadata.Tenant), cmp.Compare(x.Metadata.Name, y.Metadata.Name))
	})
	return found, b.fail["List"]
}

// Delete implements api.Objects.
func (b *Backend) Delete(ctx context.Context, who api.Caller, ref spec.Ref, ifMatch uint64) (api.ChangeRef, error) {
	o, err := b.Get(ctx, ref)
	if err != nil {
		return api.ChangeRef{}, err
	}
	if ifMatch != 0 && ifMatch != o.Metadata.Generation {
		return api.ChangeRef{}, fault.New(fault.Conflict, "delete "+ref.String(), "another writer was faster")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.objects, ref)
	return b.begin(who, ref, "delete"), nil
}

// Plan implements api.Planner.
func (b *Backend) Plan(context.Context, []*spec.Object) (api.PlanResult, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return api.PlanResult{Objects: b.Planned}, b.fail["Plan"]
}

// Verify implements api.Planner.
func (b *Backend) Verify(context.Context, []*spec.Object) ([]api.Deviation, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Deviations, b.fail["Verify"]
}

// Count is how many changes were made.
func (b *Backend) Count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.changes)
}
