package runtime

import (
	"bufio"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	tasktypes "github.com/containerd/containerd/api/types/task"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/moby/sys/signal"
)

// task reads the state of a task. containerd forgets a task that ended when it
// is itself started again: one that was started and is not there has ended.
func (c *Client) task(ctx context.Context, uid spec.UID) (isolation.Task, error) {
	r, err := c.containerd.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: string(uid)})
	err = errgrpc.ToNative(err)
	switch {
	case errdefs.IsNotFound(err) && c.wasStarted(uid):
		return isolation.Task{Status: isolation.TaskExited, Exit: &spec.ExitStatus{Unknown: true, At: time.Now()}}, nil
	case errdefs.IsNotFound(err):
		return isolation.Task{}, nil
	case err != nil:
		return isolation.Task{}, err
	}
	p := r.Process
	switch p.Status {
	case tasktypes.Status_CREATED:
		return isolation.Task{Status: isolation.TaskCreated, Pid: int(p.Pid)}, nil
	case tasktypes.Status_STOPPED:
		return isolation.Task{Status: isolation.TaskExited, Exit: c.exit(uid, p.ExitStatus, p.ExitedAt.AsTime())}, nil
	case tasktypes.Status_UNKNOWN:
		return isolation.Task{}, fault.New(fault.Temporary, "read task "+string(uid), "its shim does not answer")
	default:
		return isolation.Task{Status: isolation.TaskRunning, Pid: int(p.Pid)}, nil
	}
}

// exit is how a started task ended; nil for one that never ran the tenant's code.
func (c *Client) exit(uid spec.UID, code uint32, at time.Time) *spec.ExitStatus {
	if !c.wasStarted(uid) {
		return nil
	}
	return &spec.ExitStatus{Code: int(code), OOM: code == 137 && c.oomKilled(uid), At: at.UTC()}
}

// oomKilled asks the task's cgroup, which stays until the task is deleted.
func (c *Client) oomKilled(uid spec.UID) bool {
	paths := c.config.Paths
	f, err := os.Open(filepath.Join(paths.CgroupMount, paths.TaskCgroup(uid), "memory.events"))
	if err != nil {
		return false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if count, is := strings.CutPrefix(lines.Text(), "oom_kill "); is {
			return count != "0"
		}
	}
	return false
}

// CreateTask makes the task, created and waiting. It is runc that makes the
// leaf cgroup; the parent with the outer program must be there.
func (c *Client) CreateTask(ctx context.Context, tenant string, uid spec.UID) (int, error) {
	ctx = c.tenant(ctx, tenant)
	what := "create task " + string(uid)
	have, err := c.task(ctx, uid)
	if err != nil {
		return 0, wrap(what, err)
	}
	switch have.Status {
	case isolation.TaskCreated, isolation.TaskRunning:
		return have.Pid, nil
	case isolation.TaskExited:
		return 0, fault.New(fault.Conflict, what, "a task that ended is not deleted yet")
	}
	mounts, err := c.snapshots().Mounts(ctx, string(uid))
	if err != nil {
		return 0, wrap(what, err)
	}
	request := &tasks.CreateTaskRequest{
		ContainerID: string(uid),
		Stdout:      filepath.Join(c.config.Paths.IODir(uid), isolation.Stdout),
		Stderr:      filepath.Join(c.config.Paths.IODir(uid), isolation.Stderr),
	}
	for _, m := range mounts {
		request.Rootfs = append(request.Rootfs, &types.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	response, err := c.containerd.TaskService().Create(ctx, request)
	if err != nil {
		return 0, commandFault(what, errgrpc.ToNative(err))
	}
	return int(response.Pid), nil
}

// commandFault is wrap for the calls in which runc looks at the command: one
// that is not in the image is its writer's to mend, and trying again is no help.
func commandFault(what string, err error) error {
	_, why, found := strings.Cut(err.Error(), "exec: ")
	if !found {
		return wrap(what, err)
	}
	for _, wrong := range []string{"executable file not found", "no such file or directory", "permission denied", "is a directory", "exec format error"} {
		if strings.Contains(why, wrong) {
			return fault.New(fault.Invalid, what, "the command cannot be run: %s", why).
				WithHint("correct the command, or the image's entrypoint")
		}
	}
	return wrap(what, err)
}

// StartTask lets a waiting task run and watches it for [Client.Exits].
func (c *Client) StartTask(ctx context.Context, tenant string, uid spec.UID) error {
	what := "start task " + string(uid)
	ctx = c.tenant(ctx, tenant)
	have, err := c.task(ctx, uid)
	if err != nil {
		return wrap(what, err)
	}
	switch have.Status {
	case isolation.TaskRunning:
		return nil
	case isolation.TaskCreated:
	default:
		return fault.New(fault.Conflict, what, "there is no task that waits")
	}
	// Before the start: a task that ran unmarked could end unnoticed.
	if err := os.WriteFile(c.startedPath(uid), nil, 0o600); err != nil {
		return wrap(what, err)
	}
	if _, err := c.containerd.TaskService().Start(ctx, &tasks.StartRequest{ContainerID: string(uid)}); err != nil {
		return commandFault(what, errgrpc.ToNative(err))
	}
	c.watch(instance{tenant, uid})
	return nil
}

// StopTask sends the stop signal and waits for grace. A task that only waits
// for its start is left to the kill that follows.
func (c *Client) StopTask(ctx context.Context, tenant string, uid spec.UID, grace time.Duration) error {
	if tenant == "" {
		return nil // only the kernel knows of it: containerd keeps nothing without a tenant
	}
	what := "stop task " + string(uid)
	ctx = c.tenant(ctx, tenant)
	have, err := c.task(ctx, uid)
	if err != nil || have.Status != isolation.TaskRunning {
		return wrap(what, err)
	}
	record, err := c.containerd.ContainerService().Get(ctx, string(uid))
	if err != nil {
		return wrap(what, err)
	}
	number, err := signal.ParseSignal(record.Labels[containerd.StopSignalLabel])
	if err != nil {
		number = signal.SignalMap["TERM"]
	}
	_, err = c.containerd.TaskService().Kill(ctx, &tasks.KillRequest{ContainerID: string(uid), Signal: uint32(number)})
	if err = errgrpc.ToNative(err); err != nil && !errdefs.IsNotFound(err) {
		return wrap(what, err)
	}
	waiting, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	_, err = c.containerd.TaskService().Wait(waiting, &tasks.WaitRequest{ContainerID: string(uid)})
	err = errgrpc.ToNative(err)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil && ctx.Err() == nil && waiting.Err() != nil {
		return fault.New(fault.Timeout, what, "it did not end within %s", grace)
	}
	return wrap(what, err)
}

// AwaitExit waits until containerd knows how the task ended.
func (c *Client) AwaitExit(ctx context.Context, tenant string, uid spec.UID) (*spec.ExitStatus, error) {
	if tenant == "" {
		return nil, nil // only the kernel knows of it: containerd keeps nothing without a tenant
	}
	ctx = c.tenant(ctx, tenant)
	what := "await task " + string(uid)
	have, err := c.task(ctx, uid)
	if err != nil {
		return nil, wrap(what, err)
	}
	if have.Status == isolation.TaskNone || have.Status == isolation.TaskExited {
		return have.Exit, nil
	}
	r, err := c.containerd.TaskService().Wait(ctx, &tasks.WaitRequest{ContainerID: string(uid)})
	if err = errgrpc.ToNative(err); errdefs.IsNotFound(err) {
		have, err = c.task(ctx, uid)
		return have.Exit, wrap(what, err)
	}
	if err != nil {
		return nil, wrap(what, err) // never an exit: containerd's own end looks like this
	}
	return c.exit(uid, r.ExitStatus, r.ExitedAt.AsTime()), nil
}

// DeleteTask deletes the task, its FIFOs and the mark that it was started.
func (c *Client) DeleteTask(ctx context.Context, tenant string, uid spec.UID) error {
	if tenant == "" {
		return nil // only the kernel knows of it: containerd keeps nothing without a tenant
	}
	what := "delete task " + string(uid)
	if !uid.Valid() { // the folder of no uid is that of all
		return fault.New(fault.Internal, what, "%q is no instance's uid", uid)
	}
	ctx = c.tenant(ctx, tenant)
	_, err := c.containerd.TaskService().Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: string(uid)})
	if err = errgrpc.ToNative(err); err != nil && !errdefs.IsNotFound(err) {
		return wrap(what, err)
	}
	if err := os.RemoveAll(c.config.Paths.IODir(uid)); err != nil {
		return wrap(what, err)
	}
	if err := os.Remove(c.startedPath(uid)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return wrap(what, err)
	}
	return nil
}
