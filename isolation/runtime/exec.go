package runtime

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// ExecOptions are one more process in a running instance.
type ExecOptions struct {
	ID   string // unique among the task's processes
	Args []string
	Env  []string // added to the container's own: "TERM=xterm"
	User *isolation.User
	TTY  bool
	// Columns and Rows of the terminal from the first moment on; 0 for unknown.
	Columns, Rows uint16
	// Stdin, Stdout and Stderr are FIFOs that a relay has open already; empty for
	// none. With a terminal there is no Stderr.
	Stdin, Stdout, Stderr string
}

// ExecHandle is a process made by [Client.Exec]. It lives in its shim: the
// handle may be lost and the process runs on.
type ExecHandle struct {
	client *Client
	tenant string
	task   string
	id     string
}

// Process is the handle of a process that an earlier agent made. Whether it is
// still there shows with the first call.
func (c *Client) Process(tenant string, uid spec.UID, id string) *ExecHandle {
	return &ExecHandle{client: c, tenant: tenant, task: string(uid), id: id}
}

// Exec makes a process in the instance's task, with the container's own
// rights, environment and working directory. It waits for Start.
func (c *Client) Exec(ctx context.Context, tenant string, uid spec.UID, o ExecOptions) (*ExecHandle, error) {
	what := "exec in " + string(uid)
	if len(o.Args) == 0 || o.Args[0] == "" {
		return nil, fault.New(fault.Invalid, what, "no command")
	}
	ctx = c.tenant(ctx, tenant)
	have, err := c.task(ctx, uid)
	if err != nil {
		return nil, wrap(what, err)
	}
	if have.Status != isolation.TaskRunning {
		return nil, fault.New(fault.Conflict, what, "the instance is not running")
	}
	process, err := c.execProcess(ctx, uid, o)
	if err != nil {
		return nil, wrap(what, err)
	}
	if !o.TTY {
		// The shim opens both, whatever their names.
		o.Stdout, o.Stderr = cmp.Or(o.Stdout, os.DevNull), cmp.Or(o.Stderr, os.DevNull)
	}
	request := &tasks.ExecProcessRequest{
		ContainerID: string(uid), ExecID: o.ID, Terminal: o.TTY,
		Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Spec: typeurl.MarshalProto(process),
	}
	if _, err := c.containerd.TaskService().Exec(ctx, request); err != nil {
		return nil, wrap(what, errgrpc.ToNative(err))
	}
	return &ExecHandle{client: c, tenant: tenant, task: string(uid), id: o.ID}, nil
}

func (c *Client) execProcess(ctx context.Context, uid spec.UID, o ExecOptions) (typeurl.Any, error) {
	record, err := c.containerd.ContainerService().Get(ctx, string(uid))
	if err != nil {
		return nil, err
	}
	var stored specs.Spec
	if err := json.Unmarshal(record.Spec.GetValue(), &stored); err != nil {
		return nil, fmt.Errorf("read container specification: %w", err)
	}
	process := *stored.Process
	process.Args, process.Terminal = o.Args, o.TTY
	if o.TTY && o.Columns > 0 && o.Rows > 0 {
		process.ConsoleSize = &specs.Box{Height: uint(o.Rows), Width: uint(o.Columns)}
	}
	process.Env = mergeEnv(process.Env, o.Env)
	if o.User != nil {
		process.User = specs.User{UID: o.User.UID, GID: o.User.GID}
	}
	return typeurl.MarshalAny(&process)
}

// mergeEnv lets later entries win.
func mergeEnv(base, more []string) []string {
	index := make(map[string]int)
	var out []string
	for _, entry := range append(append([]string{}, base...), more...) {
		name, _, _ := strings.Cut(entry, "=")
		if i, there := index[name]; there {
			out[i] = entry
			continue
		}
		index[name] = len(out)
		out = append(out, entry)
	}
	return out
}

var errImpatient = errors.New("out of patience")

// Start lets the process run and returns its pid. It is a timeout when that took
// longer than patience: a process is born on its instance's own share of the
// processors, of which the tenant may leave it next to nothing.
func (h *ExecHandle) Start(ctx context.Context, patience time.Duration) (pid int, err error) {
	ctx, cancel := context.WithTimeoutCause(h.client.tenant(ctx, h.tenant), patience, errImpatient)
	defer cancel()
	r, err := h.client.containerd.TaskService().Start(ctx, &tasks.StartRequest{ContainerID: h.task, ExecID: h.id})
	switch {
	case err == nil:
		return int(r.Pid), nil
	case errors.Is(context.Cause(ctx), errImpatient):
		return 0, fault.New(fault.Timeout, h.what("start"), "the command did not begin within %v", patience).
			WithHint("the instance may be using up its own cpus or be frozen; try again, or give it more")
	default:
		return 0, commandFault(h.what("start"), errgrpc.ToNative(err))
	}
}

// Resize tells the terminal its size in characters.
func (h *ExecHandle) Resize(ctx context.Context, columns, rows uint16) error {
	ctx = h.client.tenant(ctx, h.tenant)
	_, err := h.client.containerd.TaskService().ResizePty(ctx, &tasks.ResizePtyRequest{
		ContainerID: h.task, ExecID: h.id, Width: uint32(columns), Height: uint32(rows),
	})
	return wrap(h.what("resize"), errgrpc.ToNative(err))
}

// CloseStdin lets the process read end of file.
func (h *ExecHandle) CloseStdin(ctx context.Context) error {
	ctx = h.client.tenant(ctx, h.tenant)
	_, err := h.client.containerd.TaskService().CloseIO(ctx, &tasks.CloseIORequest{ContainerID: h.task, ExecID: h.id, Stdin: true})
	return wrap(h.what("close stdin of"), errgrpc.ToNative(err))
}

// Wait returns the process's exit code.
func (h *ExecHandle) Wait(ctx context.Context) (code int, err error) {
	ctx = h.client.tenant(ctx, h.tenant)
	r, err := h.client.containerd.TaskService().Wait(ctx, &tasks.WaitRequest{ContainerID: h.task, ExecID: h.id})
	if err != nil {
		return 0, wrap(h.what("wait for"), errgrpc.ToNative(err))
	}
	return int(r.ExitStatus), nil
}

// Kill sends a signal to the process.
func (h *ExecHandle) Kill(ctx context.Context, signal syscall.Signal) error {
	ctx = h.client.tenant(ctx, h.tenant)
	_, err := h.client.containerd.TaskService().Kill(ctx, &tasks.KillRequest{ContainerID: h.task, ExecID: h.id, Signal: uint32(signal)})
	if err = errgrpc.ToNative(err); errdefs.IsNotFound(err) {
		return nil
	}
	return wrap(h.what("kill"), err)
}

// Delete forgets the process after its end. Without it the shim keeps the
// record, and its pipes, as long as the task lives.
func (h *ExecHandle) Delete(ctx context.Context) error {
	ctx = h.client.tenant(ctx, h.tenant)
	_, err := h.client.containerd.TaskService().DeleteProcess(ctx, &tasks.DeleteProcessRequest{ContainerID: h.task, ExecID: h.id})
	if err = errgrpc.ToNative(err); errdefs.IsNotFound(err) {
		return nil
	}
	return wrap(h.what("delete"), err)
}

func (h *ExecHandle) what(verb string) string { return verb + " exec " + h.id + " in " + h.task }
