package audit

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/isolation/cgroup"
	"github.com/gpuhost/gpuhost/isolation/warden/canary"
)

// Cgroups is what an audit asks about the cgroups of instances.
type Cgroups interface {
	// Effective are the device programs asked for a process of the task.
	Effective(ctx context.Context, uid spec.UID) ([]cgroup.Attached, error)
	// Outer are those on the instance's parent cgroup itself.
	Outer(ctx context.Context, uid spec.UID) ([]cgroup.Attached, error)
	Pids(ctx context.Context, uid spec.UID) ([]int, error)
	List(ctx context.Context) ([]spec.UID, error)
	Controllers(ctx context.Context) ([]string, error)
}

// Canary tries to open nodes below an instance's outer program.
type Canary interface {
	// Canary gives what the kernel answered; an error means that nothing was asked.
	Canary(ctx context.Context, uid spec.UID, o canary.Options) ([]canary.Result, error)
}

// Config is what an auditor works with.
type Config struct {
	Paths    isolation.Paths
	UVMMajor func() uint32 // of nvidia-uvm, 0 while there is none
	Cgroups  Cgroups
	Canary   Canary
}

// Auditor reads the controls of tasks. It keeps no state and may audit several
// tasks at once.
type Auditor struct {
	config Config
}

var _ isolation.Auditor = (*Auditor)(nil)

// New makes an auditor.
func New(config Config) *Auditor { return &Auditor{config: config} }

// settleAfter are the pauses before processes that look wrong are read again: a
// process that runc brings in by exec passes through the cgroup before it has
// joined the container's namespaces.
func settleAfter() []time.Duration {
	return []time.Duration{5 * time.Millisecond, 20 * time.Millisecond, 80 * time.Millisecond, 320 * time.Millisecond}
}

// Audit reports every control of the task, passed or not. An error means that
// there is no task of this lease to look at, or that the canary could not run
// while all else is as it should be: then the next audit will say.
func (a *Auditor) Audit(ctx context.Context, lease isolation.Lease, pid int) ([]spec.Control, error) {
	pids, err := a.config.Cgroups.Pids(ctx, lease.UID)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "audit instance "+string(lease.UID), err)
	}
	if !slices.Contains(pids, pid) {
		return nil, fault.New(fault.Temporary, "audit instance "+string(lease.UID),
			"process %d is not in its cgroup, which holds %v", pid, pids)
	}
	want := a.want(ctx, lease)
	facts := a.read(ctx, want, pid)
	a.settle(ctx, want, &facts)
	controls := Judge(want, facts)
	if err := errors.Join(facts.Tries.Err, facts.Strangers.Err); err != nil && onlyCanaryFailed(controls) {
		return nil, fault.Wrap(fault.Temporary, "audit instance "+string(lease.UID), err)
	}
	return controls, nil
}

func onlyCanaryFailed(controls []spec.Control) bool {
	return !slices.ContainsFunc(controls, func(c spec.Control) bool { return !c.Pass && c.ID != canaryControl })
}

// settle reads again while some process of the first reading looks wrong. One that
// only later readings show wrong is left to the next audit, or a tenant's every
// exec could fail this one.
func (a *Auditor) settle(ctx context.Context, want Want, facts *Facts) {
	wrong := suspects(want, *facts)
	for _, pause := range settleAfter() {
		if len(wrong) == 0 || ctx.Err() != nil {
			return
		}
		wait(ctx, pause)
		facts.Processes = a.readProcesses(ctx, want.Lease.UID)
		again := suspects(want, *facts)
		facts.Processes.Value = slices.DeleteFunc(facts.Processes.Value, func(p Process) bool { return again[p.PID] && !wrong[p.PID] })
		maps.DeleteFunc(wrong, func(pid int, _ bool) bool { return !again[pid] })
	}
}

func wait(ctx context.Context, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func (a *Auditor) want(ctx context.Context, lease isolation.Lease) Want {
	controllers, err := a.config.Cgroups.Controllers(ctx)
	return Want{
		Lease:       lease,
		Nodes:       isolation.Grant(lease, a.config.UVMMajor()),
		Controllers: Fact[[]string]{controllers, err},
	}
}

// Want is what the lease demands, and the little of the host that decides it.
type Want struct {
	Lease       isolation.Lease
	Nodes       []isolation.Node
	Controllers Fact[[]string]
}

// Fact is something read, or why it could not be.
type Fact[T any] struct {
	Value T
	Err   error
}

func fact[T any](value T, err error) Fact[T] { return Fact[T]{value, err} }

// Facts is all that an audit reads of one task.
type Facts struct {
	PID       int
	Host      Fact[Namespaces]
	Peers     Fact[map[spec.UID]Namespaces]
	Processes Fact[[]Process]
	NetOwner  Fact[string] // the user namespace that owns the task's network namespace
	UIDMap    Fact[string]
	GIDMap    Fact[string]
	RootOwner Fact[uint32]
	Mounts    Fact[[]Mount]
	Devices   Fact[[]Device]
	Outer     Fact[[]cgroup.Attached]
	Effective Fact[[]cgroup.Attached]
	Tries     Fact[[]canary.Result] // as host root, of granted and forbidden nodes
	Strangers Fact[[]canary.Result] // as the tenant, of other tenants' nodes
	Masked    Fact[[]Hidden]
	ReadOnly  Fact[[]Hidden]
	Shm       Fact[FileSystem]
	Limits    map[string]Fact[string] // file of the leaf cgroup: content
}

// Namespaces are the links of /proc/PID/ns by name: "net" to "net:[4026531840]".
type Namespaces map[string]string

// Process is one process of the task.
type Process struct {
	PID        int
	Name       string // the tenant's own text
	Caps       map[string]uint64
	NoNewPrivs string
	Seccomp    string
	Namespaces Namespaces
}

// Mount is one line of /proc/PID/mountinfo.
type Mount struct {
	Point, Root, Type string
	Options           []string // of the mount, not of the file system
}

// Device is a device node below the task's /dev.
type Device struct {
	Path         string // "/dev/nvidia0"
	Block        bool
	Major, Minor uint32
	UID, GID     uint32
	Mode         uint32 // permission bits
}

// Hidden is a path that must not show what the host has there.
type Hidden struct {
	Path  string
	State string // one of the constants below
}

// What is found at a path that should be masked or read-only.
const (
	StateAbsent   = "absent"
	StateMasked   = "masked"    // /dev/null, or an empty read-only folder
	StateReadOnly = "read-only" // of a path that need not be masked
	StateVisible  = "visible"
)

// FileSystem is one of the task's file systems, seen from inside its root.
type FileSystem struct {
	Tmpfs   bool
	Bytes   int64
	Options []string // nosuid, nodev, noexec, ro
	OwnRoot bool     // not the host's own file system of that path
}
