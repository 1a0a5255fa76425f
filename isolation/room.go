package isolation

import (
	"context"
	"sync"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// Deps are the ports of the room; all are needed.
type Deps struct {
	Containers Containers
	Tasks      Tasks
	Images     Images
	Cgroups    Cgroups
	Nodes      Nodes
	Pins       Pins
	Wardens    Wardens
	Auditor    Auditor
	Guard      Guard
	Secrets    Secrets
	Trees      Trees
	Exits      Exits
	Now        func() time.Time
}

// Room observes and changes the containers of one host. It is safe for use by
// several lanes at once, one lane an instance.
type Room struct {
	Deps
	mu sync.Mutex
	// audited holds the pid of the task that passed its audit in this process: an
	// agent that restarts audits again before it starts anything.
	audited map[spec.UID]int
}

// New makes a room of its ports.
func New(deps Deps) *Room {
	return &Room{Deps: deps, audited: make(map[spec.UID]int)}
}

// endWait bounds how long after the kernel containerd may learn that a task ended.
const endWait = time.Second

// Observe reads what there is of the instance; it changes nothing. A task that
// containerd calls running while its cgroup is empty has ended: the kernel is
// right. Its exit status is unknown if containerd does not have it soon.
func (r *Room) Observe(ctx context.Context, lease Lease) (Have, error) {
	have, err := r.observe(ctx, lease)
	if err != nil {
		return Have{}, fault.Wrap(fault.Internal, "observe container of "+title(lease), err)
	}
	if have.Running() && !have.Cgroup.Populated {
		have.Container, err = r.ended(ctx, lease)
	}
	return have, fault.Wrap(fault.Internal, "observe container of "+title(lease), err)
}

// ended reads a container again whose task has ended.
func (r *Room) ended(ctx context.Context, lease Lease) (ContainerState, error) {
	waiting, cancel := context.WithTimeout(ctx, endWait)
	defer cancel()
	// Whatever came of the wait, the state read after it says what is known.
	_, _ = r.Tasks.AwaitExit(waiting, lease.Tenant, lease.UID)
	state, err := r.Containers.State(ctx, lease.Tenant, lease.UID)
	if state.Task.Status == TaskRunning {
		state.Task = Task{Status: TaskExited, Exit: &spec.ExitStatus{Unknown: true, At: r.Now()}}
	}
	return state, err
}

func (r *Room) observe(ctx context.Context, lease Lease) (have Have, err error) {
	if have.Container, err = r.Containers.State(ctx, lease.Tenant, lease.UID); err != nil {
		return have, err
	}
	if have.Cgroup, err = r.Cgroups.State(ctx, lease); err != nil {
		return have, err
	}
	if have.Nodes, err = r.Nodes.State(ctx, have.Container.settle(lease)); err != nil {
		return have, err
	}
	if have.Pin, err = r.Pins.State(ctx, lease.UID, have.Container.Task.Pid); err != nil {
		return have, err
	}
	if have.LogAlive, err = r.Wardens.LogAlive(ctx, lease.UID); err != nil {
		return have, err
	}
	if have.Controllers, err = r.Cgroups.Controllers(ctx); err != nil {
		return have, err
	}
	if !needsImage(lease, have) {
		if have.Container.Container {
			have.Image = Image{Ref: lease.Image, Digest: have.Container.ImageDigest}
		}
		return have, nil
	}
	have.Image, err = r.Images.Image(ctx, lease.Tenant, lease.Image)
	return have, err
}

// needsImage says whether a container is to be made: only then is the image of
// interest.
func needsImage(lease Lease, have Have) bool {
	p := planner{want: lease, have: have}
	return lease.Want == WantRunning && (!have.Container.Container || len(p.changed()) > 0 || p.foreignDisk())
}

// Audit reads every control of a running instance back from the kernel. Of a task
// that ends while it is looked at nearly every control fails, which says nothing
// about the instance: that is a conflict, and no finding.
func (r *Room) Audit(ctx context.Context, lease Lease) ([]spec.Control, error) {
	what := "audit " + title(lease)
	state, err := r.Containers.State(ctx, lease.Tenant, lease.UID)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, what, err)
	}
	if s := state.Task.Status; s != TaskCreated && s != TaskRunning {
		return nil, fault.New(fault.Conflict, what, "it has no task to look at")
	}
	controls, err := r.Auditor.Audit(ctx, state.settle(lease), state.Task.Pid)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, what, err)
	}
	if failures(controls) == "" {
		return controls, nil
	}
	after, err := r.Observe(ctx, lease)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, what, err)
	}
	if task := after.Container.Task; task.Status == TaskExited || task.Pid != state.Task.Pid {
		return nil, fault.New(fault.Conflict, what, "its task ended meanwhile")
	}
	return controls, nil
}

func (r *Room) setAudited(uid spec.UID, pid int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.audited[uid] = pid
}

// takeAudited says whether the task passed its audit, and forgets it: one audit
// is good for one start.
func (r *Room) takeAudited(uid spec.UID, pid int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	passed, there := r.audited[uid]
	delete(r.audited, uid)
	return there && passed == pid
}

func title(l Lease) string { return "instance " + l.Tenant + "/" + l.Name }
