package runtime

import (
	"context"
	"strings"
	"sync"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// resyncExits is how often running tasks are listed again: after a restart of
// containerd, and for tasks that somebody else started.
const resyncExits = 5 * time.Second

// Exit says that a task ended.
type Exit struct {
	Tenant string
	UID    spec.UID
	Status spec.ExitStatus
}

// Exits reports each end of a started task, those of tasks found running
// included, until ctx ends; the channel is closed then. It waits on every
// running task by itself: containerd's events may be lost. It may be called
// once for a client.
func (c *Client) Exits(ctx context.Context) <-chan Exit {
	out := make(chan Exit)
	go func() {
		defer close(out)
		var waits sync.WaitGroup
		defer waits.Wait()
		begin := func(i instance) { waits.Go(func() { c.awaitExit(ctx, i, out) }) }
		resync := time.NewTicker(resyncExits)
		defer resync.Stop()
		c.watchRunning(ctx, begin)
		for {
			select {
			case <-ctx.Done():
				return
			case i := <-c.started:
				begin(i)
			case <-resync.C:
				c.watchRunning(ctx, begin)
			}
		}
	}()
	return out
}

// watch asks for a task's exit to be reported. While nobody reads [Client.Exits]
// it is the next listing that finds the task.
func (c *Client) watch(i instance) {
	if !c.claim(i) {
		return
	}
	select {
	case c.started <- i:
	default:
		c.release(i)
	}
}

func (c *Client) claim(i instance) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watched[i] {
		return false
	}
	c.watched[i] = true
	return true
}

func (c *Client) release(i instance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.watched, i)
}

// watchRunning begins to wait on every running task that nobody waits on.
func (c *Client) watchRunning(ctx context.Context, begin func(instance)) {
	tenants, err := c.tenants(ctx)
	if err != nil {
		return // containerd is away: the next listing tries again
	}
	for _, tenant := range tenants {
		r, err := c.containerd.TaskService().List(c.tenant(ctx, tenant), &tasks.ListTasksRequest{})
		if err != nil {
			return
		}
		for _, task := range r.Tasks {
			i := instance{tenant, spec.UID(task.ID)}
			if task.Status == tasktypes.Status_RUNNING && c.claim(i) {
				begin(i)
			}
		}
	}
}

// tenants lists the tenants that have a namespace on this host.
func (c *Client) tenants(ctx context.Context) ([]string, error) {
	all, err := c.containerd.NamespaceService().List(ctx)
	if err != nil {
		return nil, wrap("list containerd namespaces", err)
	}
	var tenants []string
	for _, name := range all {
		if tenant, ours := strings.CutPrefix(name, c.config.HostID+"-"); ours {
			tenants = append(tenants, tenant)
		}
	}
	return tenants, nil
}

// awaitExit reports one task's end. An error of the wait is not an exit: when
// containerd dies, every wait ends with one. The task is listed again later,
// or is gone then and reported as unknown.
func (c *Client) awaitExit(ctx context.Context, i instance, out chan<- Exit) {
	defer c.release(i)
	inside := c.tenant(ctx, i.tenant)
	for {
		r, err := c.containerd.TaskService().Wait(inside, &tasks.WaitRequest{ContainerID: string(i.uid)})
		err = errgrpc.ToNative(err)
		var status *spec.ExitStatus
		switch {
		case err == nil:
			status = c.exit(i.uid, r.ExitStatus, r.ExitedAt.AsTime())
		case errdefs.IsNotFound(err):
			if c.wasStarted(i.uid) {
				status = &spec.ExitStatus{Unknown: true, At: time.Now().UTC()}
			}
		case ctx.Err() != nil:
			return
		default:
			if wait(ctx, firstPause) {
				continue
			}
			return
		}
		if status == nil {
			return // deleted by ourselves meanwhile
		}
		select {
		case out <- Exit{Tenant: i.tenant, UID: i.uid, Status: *status}:
		case <-ctx.Done():
		}
		return
	}
}
