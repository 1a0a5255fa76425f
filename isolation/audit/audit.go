package audit

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

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
	// Threads are the live threads of the instance, all of them.
	Threads(ctx context.Context, uid spec.UID) ([]int, error)
	List(ctx context.Context) ([]spec.UID, error)
	Controllers(ctx context.Context) ([]string, error)
}

// Canary tries to open nodes below an instance's outer program.
type Canary interface {
	// Canary gives what the kernel answered to every try; an error means that nothing
	// was proved.
	Canary(ctx context.Context, uid spec.UID, t canary.Tries) (canary.Answer, error)
}

// Config is what an auditor works with.
type Config struct {
	Paths    isolation.Paths
	UVMMajor func() uint32 // of nvidia-uvm, 0 while there is none
	Cgroups  Cgroups
	Canary   Canary
}

// Auditor reads the controls of tasks, several at once. All it remembers is what it
// read of the others.
type Auditor struct {
	config Config
	peers  peers
}

var _ isolation.Auditor = (*Auditor)(nil)

// New makes an auditor.
func New(config Config) *Auditor { return &Auditor{config: config} }

// settleAfter are the pauses before threads that look wrong are read again: a
// process that runc brings in by exec passes through the cgroup before it has
// joined the container's namespaces. On a machine with thirty processes for every
// processor that took more than half a second.
func settleAfter() []time.Duration {
	return []time.Duration{
		5 * time.Millisecond, 20 * time.Millisecond, 80 * time.Millisecond, 320 * time.Millisecond, 1280 * time.Millisecond, 3 * time.Second,
	}
}

// Audit reports every control of the task, passed or not; the canary's is unknown
// where that could not run. An error means that there is no finding: there is no task
// of this lease to look at, or it ended while it was looked at (a conflict).
func (a *Auditor) Audit(ctx context.Context, lease isolation.Lease, pid int) ([]spec.Control, error) {
	controls, err := a.audit(ctx, lease, pid)
	return controls, fault.Wrap(fault.Internal, "audit instance "+string(lease.UID), err)
}

func (a *Auditor) audit(ctx context.Context, lease isolation.Lease, pid int) ([]spec.Control, error) {
	task, err := unix.PidfdOpen(pid, 0) // from here on the number is of no other process
	if err != nil {
		return nil, fault.New(fault.Temporary, "", "open process %d: %w", pid, err)
	}
	defer unix.Close(task)
	tid, err := a.witness(ctx, lease.UID, pid)
	if err != nil {
		return nil, err
	}
	want := a.want(ctx, lease)
	facts := a.read(ctx, want, tid)
	a.clear(ctx, want, &facts)
	a.settle(ctx, want, &facts)
	controls := Judge(want, facts)
	if hasEnded(task) {
		return nil, fault.New(fault.Conflict, "", "its task ended meanwhile")
	}
	return controls, nil
}

// witness is the thread through which the task is looked at: its first, or another
// where that one has ended, which ends no process.
func (a *Auditor) witness(ctx context.Context, uid spec.UID, pid int) (int, error) {
	members, err := a.config.Cgroups.Threads(ctx, uid)
	if err != nil {
		return 0, err
	}
	if slices.Contains(members, pid) {
		return pid, nil
	}
	for _, tid := range members {
		var st unix.Stat_t
		if unix.Lstat(fmt.Sprintf("/proc/%d/task/%d", pid, tid), &st) == nil {
			return tid, nil
		}
	}
	return 0, fault.New(fault.Temporary, "", "process %d is not in its cgroup, which holds %d threads", pid, len(members))
}

// hasEnded says whether all threads of a pidfd's process have ended.
func hasEnded(pidfd int) bool {
	state := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(state, 0)
	return n > 0 && err == nil
}

// settle reads again while some thread of the first reading looks wrong. One that
// only later readings show wrong is left to the next audit, or a tenant's every
// exec could fail this one.
func (a *Auditor) settle(ctx context.Context, want Want, facts *Facts) {
	wrong := suspects(want, *facts)
	for _, pause := range settleAfter() {
		if len(wrong) == 0 || ctx.Err() != nil {
			return
		}
		wait(ctx, pause)
		facts.Threads = a.readThreads(ctx, want.Lease.UID)
		again := suspects(want, *facts)
		facts.Threads.Value = slices.DeleteFunc(facts.Threads.Value, func(t Thread) bool { return again[t.TID] && !wrong[t.TID] })
		maps.DeleteFunc(wrong, func(tid int, _ bool) bool { return !again[tid] })
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
		PageSize:    os.Getpagesize(),
	}
}

// Want is what the lease demands, and the little of the host that decides it.
type Want struct {
	Lease       isolation.Lease
	Nodes       []isolation.Node
	Controllers Fact[[]string]
	PageSize    int // of memory, in bytes
}

// Fact is something read, or why it could not be.
type Fact[T any] struct {
	Value T
	Err   error
}

func fact[T any](value T, err error) Fact[T] { return Fact[T]{value, err} }

// Facts is all that an audit reads of one task.
type Facts struct {
	TID       int // of the thread through which the task was looked at
	Host      Fact[Namespaces]
	Peers     Fact[map[spec.UID]Namespaces]
	Threads   Fact[[]Thread]
	NetOwner  Fact[string] // the user namespace that owns the task's network namespace
	UIDMap    Fact[string]
	GIDMap    Fact[string]
	RootOwner Fact[uint32]
	Mounts    Fact[[]Mount]
	Devices   Fact[[]Device]
	Outer     Fact[[]cgroup.Attached]
	Effective Fact[[]cgroup.Attached]
	// Tries are as host root of granted and forbidden nodes, and as the tenant of
	// other tenants' nodes.
	Tries    Fact[canary.Answer]
	Masked   Fact[[]Hidden]
	ReadOnly Fact[[]Hidden]
	Shm      Fact[FileSystem]
	Limits   map[string]Fact[string] // file of the leaf cgroup: content
}

// Namespaces are the links of /proc/PID/ns by name: "net" to "net:[4026531840]".
type Namespaces map[string]string

// Thread is one thread of the task: namespaces, capabilities and filters are each
// thread's own.
type Thread struct {
	TID, PID   int
	Leads      bool   // its process's first thread, or stands for it where that has ended
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
