package isolation

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// killWait bounds the wait for an empty cgroup after cgroup.kill. What survives
// it sits in an uninterruptible call of a driver.
const killWait = 10 * time.Second

// Apply makes the one change that a step of this room describes.
func (r *Room) Apply(ctx context.Context, step plan.Step, report plan.Report) error {
	return fault.Wrap(fault.Internal, step.Verb+" "+step.Title, r.apply(ctx, step, report))
}

func (r *Room) apply(ctx context.Context, step plan.Step, report plan.Report) error {
	switch step.Verb {
	case VerbFence, VerbStop, VerbDeleteTask, VerbDeleteContainer, VerbRemove:
		args, err := plan.ArgsAs[EndArgs](step)
		if err != nil {
			return err
		}
		if step.Verb == VerbStop && args.Grace > 0 && report != nil {
			report(plan.Progress{Note: "it has " + args.Grace.String() + " to end by itself"})
		}
		return r.applyEnd(ctx, step.Verb, spec.UID(step.Object), args)
	}
	lease, err := plan.ArgsAs[Lease](step)
	if err != nil {
		return err
	}
	switch step.Verb {
	case VerbPrepareImage:
		return r.prepareImage(ctx, lease, report)
	case VerbMakeCgroup:
		return r.Cgroups.Make(ctx, lease)
	case VerbMakeNodes:
		return r.makeNodes(ctx, lease)
	case VerbCreate:
		return r.create(ctx, lease)
	case VerbAudit:
		return r.audit(ctx, lease)
	case VerbStart:
		return r.start(ctx, lease)
	}
	return fault.New(fault.Internal, string(step.ID), "unknown verb")
}

func (r *Room) applyEnd(ctx context.Context, verb string, uid spec.UID, args EndArgs) error {
	switch verb {
	case VerbFence:
		return r.Cgroups.Fence(ctx, uid)
	case VerbStop:
		return r.stop(ctx, uid, args)
	case VerbDeleteTask:
		return r.deleteTask(ctx, uid, args)
	case VerbDeleteContainer:
		return r.Containers.Delete(ctx, args.Tenant, uid, args.Disk)
	default:
		return r.Containers.Delete(ctx, args.Tenant, uid, DeleteDisk)
	}
}

func (r *Room) prepareImage(ctx context.Context, lease Lease, report plan.Report) error {
	req := ImageRequest{Tenant: lease.Tenant, Ref: lease.Image, Policy: lease.PullPolicy}
	if lease.PullSecret != "" {
		req.Login = func(ctx context.Context) (username, password string, err error) {
			return r.login(ctx, lease)
		}
	}
	_, err := r.Images.PrepareImage(ctx, req, report)
	return err
}

func (r *Room) login(ctx context.Context, lease Lease) (username, password string, err error) {
	if username, err = r.Secrets.Value(ctx, lease.Tenant, lease.PullSecret+"/username"); err != nil {
		return "", "", err
	}
	password, err = r.Secrets.Value(ctx, lease.Tenant, lease.PullSecret+"/password")
	return username, password, err
}

func (r *Room) makeNodes(ctx context.Context, lease Lease) error {
	user, err := r.Containers.User(ctx, lease)
	if err != nil {
		return fmt.Errorf("find the user who owns the nodes: %w", err)
	}
	return r.Nodes.Make(ctx, lease.As(user))
}

// create makes what is missing of container, log writer, task and pin. On a
// task that runs it only mends the log writer and the pin.
func (r *Room) create(ctx context.Context, lease Lease) error {
	state, err := r.Containers.State(ctx, lease.Tenant, lease.UID)
	if err != nil {
		return err
	}
	if state.Task.Status == TaskNone {
		if err := r.prepareContainer(ctx, lease); err != nil {
			return err
		}
	}
	if err := r.Wardens.StartLog(ctx, lease.UID); err != nil {
		return fmt.Errorf("start log writer: %w", err)
	}
	pid, err := r.Tasks.CreateTask(ctx, lease.Tenant, lease.UID)
	if err != nil {
		return err
	}
	return r.Pins.Pin(ctx, lease.UID, pid)
}

// prepareContainer refuses to go on without the outer program: a parent cgroup
// that runc makes itself lets everything through.
func (r *Room) prepareContainer(ctx context.Context, lease Lease) error {
	cgroup, err := r.Cgroups.State(ctx, lease)
	if err != nil {
		return err
	}
	if cgroup.Program != ProgramGrant {
		return fault.New(fault.Internal, "check cgroup", "outer device program is %q, want %q", cgroup.Program, ProgramGrant)
	}
	user, err := r.Containers.User(ctx, lease)
	if err != nil {
		return err
	}
	nodes, err := r.Nodes.State(ctx, lease.As(user))
	if err != nil {
		return err
	}
	if !nodes.Complete {
		return fault.New(fault.Internal, "check device nodes", "they are not exactly the lease's")
	}
	env, err := r.env(ctx, lease)
	if err != nil {
		return err
	}
	controllers, err := r.Cgroups.Controllers(ctx)
	if err != nil {
		return err
	}
	tree, err := r.Trees.Tree(ctx, lease.Tenant)
	if err != nil {
		return fmt.Errorf("prepare the driver tree: %w", err)
	}
	return r.Containers.Prepare(ctx, Creation{
		Lease: lease, User: user, Fingerprint: FingerprintOf(lease), Nodes: nodes.Nodes, Controllers: controllers, DriverTree: tree, Env: env,
	})
}

func (r *Room) env(ctx context.Context, lease Lease) (map[string]string, error) {
	env := make(map[string]string, len(lease.Env))
	for key, value := range lease.Env {
		env[key] = value.Value
		if value.Secret == "" {
			continue
		}
		secret, err := r.Secrets.Value(ctx, lease.Tenant, value.Secret)
		if err != nil {
			return nil, fmt.Errorf("resolve environment variable %s: %w", key, err)
		}
		env[key] = secret
	}
	return env, nil
}

func (r *Room) audit(ctx context.Context, lease Lease) error {
	state, err := r.Containers.State(ctx, lease.Tenant, lease.UID)
	if err != nil {
		return err
	}
	task := state.Task
	if task.Status != TaskCreated {
		return fault.New(fault.Conflict, "find task", "it is %q, want %q", task.Status, TaskCreated)
	}
	controls, err := r.Auditor.Audit(ctx, state.settle(lease), task.Pid)
	if err != nil {
		return err
	}
	if len(controls) == 0 {
		return fault.New(fault.Internal, "read controls", "the audit looked at nothing")
	}
	switch failed := failures(controls); {
	case failed == "":
	case slices.ContainsFunc(controls, func(c spec.Control) bool { return !c.Pass && !c.Unknown }):
		return fault.New(fault.Internal, "read controls", "not as granted: %s", failed)
	default:
		return fault.New(fault.Temporary, "read controls", "not proved: %s", failed)
	}
	r.setAudited(lease.UID, task.Pid)
	return nil
}

func failures(controls []spec.Control) string {
	var failed []string
	for _, c := range controls {
		if !c.Pass {
			failed = append(failed, fmt.Sprintf("%s %s (expected %s, found %s)", c.ID, c.Name, c.Expected, c.Found))
		}
	}
	return strings.Join(failed, "; ")
}

// start fails closed: without an audit passed by this very task, and without
// the guard in force at this moment, nothing starts.
func (r *Room) start(ctx context.Context, lease Lease) error {
	state, err := r.Containers.State(ctx, lease.Tenant, lease.UID)
	if err != nil {
		return err
	}
	if state.Task.Status == TaskRunning {
		return nil
	}
	if !r.takeAudited(lease.UID, state.Task.Pid) {
		return fault.New(fault.Internal, "check audit", "the task did not pass one in this run of the agent")
	}
	if err := r.Guard.Prove(ctx, lease.UID); err != nil {
		return fmt.Errorf("prove network guard: %w", err)
	}
	return r.Tasks.StartTask(ctx, lease.Tenant, lease.UID)
}

// stop lets the task end by itself within its grace, then empties the cgroup,
// whoever is left in it.
func (r *Room) stop(ctx context.Context, uid spec.UID, args EndArgs) error {
	err := r.Tasks.StopTask(ctx, args.Tenant, uid, args.Grace)
	if err != nil && !fault.Is(err, fault.Timeout) {
		return err
	}
	if err := r.kill(ctx, uid); err != nil {
		return err
	}
	return r.recordExit(ctx, uid, args.Tenant)
}

func (r *Room) kill(ctx context.Context, uid spec.UID) error {
	ctx, cancel := context.WithTimeout(ctx, killWait)
	defer cancel()
	return r.Cgroups.Kill(ctx, uid)
}

// recordExit is called with an empty cgroup: containerd must know the end soon,
// or cgroup and task are not of one instance and nothing may be deleted.
func (r *Room) recordExit(ctx context.Context, uid spec.UID, tenant string) error {
	waiting, cancel := context.WithTimeout(ctx, killWait)
	defer cancel()
	exit, err := r.Tasks.AwaitExit(waiting, tenant, uid)
	if err != nil {
		return fmt.Errorf("await exit: %w", err)
	}
	if exit == nil {
		return nil
	}
	return r.Exits.RecordExit(ctx, uid, *exit)
}

// deleteTask removes the task and all that lives with it. The log writer goes
// after the task, when the pipes have got their last byte.
func (r *Room) deleteTask(ctx context.Context, uid spec.UID, args EndArgs) error {
	if err := r.kill(ctx, uid); err != nil {
		return err
	}
	if err := r.recordExit(ctx, uid, args.Tenant); err != nil {
		return fmt.Errorf("record exit: %w", err)
	}
	if err := r.Tasks.DeleteTask(ctx, args.Tenant, uid); err != nil {
		return err
	}
	for _, remove := range []func(context.Context, spec.UID) error{
		r.Wardens.StopLog, r.Pins.Unpin, r.Nodes.Remove, r.Cgroups.Remove,
	} {
		if err := remove(ctx, uid); err != nil {
			return err
		}
	}
	return nil
}
