package isolation

import (
	"context"
	"time"

	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// What this room needs of the operating system, declared by its user. Each port
// has one real implementation in a sub-package and one fake that holds state
// and injects faults. Every method is idempotent: doing it twice is doing it
// once, and removing what is absent succeeds.

// Cgroups keeps the parent cgroup of an instance, [Paths.Cgroup], with the
// agent's own ("outer") device program on it. runc's leaf, [Paths.TaskCgroup],
// comes and goes below it with the task.
type Cgroups interface {
	// Make creates the parent cgroup and attaches the outer program that lets
	// exactly the lease's nodes through, replacing any other program of ours. It
	// must be done before the task exists: runc makes a missing parent without one.
	Make(ctx context.Context, lease Lease) error
	// State reads the cgroup and compares its program with the lease.
	State(ctx context.Context, lease Lease) (CgroupState, error)
	// Fence replaces the outer program by one that denies everything.
	Fence(ctx context.Context, uid spec.UID) error
	// Kill ends every process below the parent and returns once cgroup.events
	// says populated 0, or with a busy fault when ctx ends first.
	Kill(ctx context.Context, uid spec.UID) error
	// Remove deletes the empty parent and any empty leaf a crash left below it.
	Remove(ctx context.Context, uid spec.UID) error
	// Controllers lists the controllers that limits may use here ("cpu", "memory", …).
	Controllers(ctx context.Context) ([]string, error)
}

// CgroupState is the parent cgroup as found.
type CgroupState struct {
	Exists    bool    `json:"exists"`
	Program   Program `json:"program"`
	Populated bool    `json:"populated"`
	Pids      []int   `json:"pids,omitempty"` // of the whole subtree
}

// Program is what the outer device program on a cgroup does.
type Program string

// The programs.
const (
	ProgramNone  Program = ""      // none of ours is attached: fail-open, never started so
	ProgramGrant Program = "grant" // lets exactly the lease's nodes through
	ProgramDeny  Program = "deny"  // the fence
	ProgramOther Program = "other" // another set than the lease's
)

// Nodes keeps the private device nodes of an instance in the agent's own tmpfs,
// [Paths.NodeDir]: mode 0600, owned by [Lease.NodeOwner]. Leases come with their
// user settled.
type Nodes interface {
	// Make makes exactly the nodes the lease grants and removes others.
	Make(ctx context.Context, lease Lease) error
	// State lists what lies there and says whether it is exactly the lease's grant.
	State(ctx context.Context, lease Lease) (NodesState, error)
	// Remove removes the instance's folder.
	Remove(ctx context.Context, uid spec.UID) error
}

// NodesState is the node folder as found. Complete is true for a lease that
// grants nothing when nothing is there.
type NodesState struct {
	Nodes    []Node `json:"nodes,omitempty"`
	Complete bool   `json:"complete"`
}

// Node is one private device node and where the container sees it.
type Node struct {
	Name  string `json:"name"` // "nvidia0": file in Paths.NodeDir, and below /dev in the container
	Major uint32 `json:"major"`
	Minor uint32 `json:"minor"`
}

// Pins keeps the network namespace of a task alive and findable at [Paths.Pin].
type Pins interface {
	// Pin binds /proc/<pid>/ns/net there, replacing the pin of another namespace.
	Pin(ctx context.Context, uid spec.UID, pid int) error
	// State compares the pin with the namespace of pid; pid 0 is no task.
	State(ctx context.Context, uid spec.UID, pid int) (PinState, error)
	Unpin(ctx context.Context, uid spec.UID) error
}

// PinState is a pin as found.
type PinState string

// The states of a pin.
const (
	PinNone    PinState = ""
	PinCurrent PinState = "current" // the namespace of the task asked about
	PinStale   PinState = "stale"   // of a task that is gone, or of another
)

// Wardens runs the log writer of a task: a process of its own that outlives
// the agent, reads the task's FIFOs in [Paths.IODir] and writes [Paths.LogDir].
type Wardens interface {
	// StartLog makes the FIFOs' reader run; it has both FIFOs open when it
	// returns. The FIFOs exist already.
	StartLog(ctx context.Context, uid spec.UID) error
	LogAlive(ctx context.Context, uid spec.UID) (bool, error)
	// StopLog lets the writer drain what the pipes hold, then ends it.
	StopLog(ctx context.Context, uid spec.UID) error
}

// Auditor reads the controls of a task back from the kernel.
type Auditor interface {
	// Audit reports every control it knows, passed or not; an error means that
	// it could not look, which counts as a failure. The lease's user is settled.
	Audit(ctx context.Context, lease Lease, pid int) ([]spec.Control, error)
}

// Guard is the network room's proof that an instance's default-deny is in force.
type Guard interface {
	Prove(ctx context.Context, uid spec.UID) error
}

// Secrets resolves one value of a tenant's secret, ref being "name/key". Values
// go from here into a container's environment or a registry's login, nowhere else.
type Secrets interface {
	Value(ctx context.Context, tenant, ref string) (string, error)
}

// Trees keeps a copy of the driver's libraries and tools for each tenant: no two
// tenants map one inode.
type Trees interface {
	// Tree gives the tenant's copy for the driver in force, made if it is missing;
	// "" where the host has no driver.
	Tree(ctx context.Context, tenant string) (string, error)
}

// Exits persists how a task ended. It is called before the task is deleted,
// because containerd forgets the status then, and at every restart of its own.
type Exits interface {
	RecordExit(ctx context.Context, uid spec.UID, exit spec.ExitStatus) error
}

// Images brings an image into the tenant's own image store, unpacked.
type Images interface {
	// Image says what the tenant has of ref: a zero Image when it is not there
	// or not unpacked.
	Image(ctx context.Context, tenant, ref string) (Image, error)
	// PrepareImage pulls or imports ref if the policy asks for it, and unpacks it.
	PrepareImage(ctx context.Context, req ImageRequest, report plan.Report) (Image, error)
}

// Image is an image of one tenant, unpacked and ready. The zero value is none.
type Image struct {
	Ref    string `json:"ref,omitempty"`
	Digest string `json:"digest,omitempty"` // of the manifest
}

// ImageRequest asks for an image.
type ImageRequest struct {
	Tenant string
	Ref    string // "registry.example/debian:12" or "oci-archive:/path.tar"
	Policy string // spec.PullMissing, PullAlways or PullNever; empty is PullMissing
	// Login gives user name and password of the registry when it asks for them;
	// nil for none. What it returns is in no error and no log.
	Login func(ctx context.Context) (username, password string, err error)
}

// Containers keeps an instance's snapshot and container, which both carry the
// instance's uid as their name.
type Containers interface {
	State(ctx context.Context, tenant string, uid spec.UID) (ContainerState, error)
	// User says whom the instance's container runs as or, where there is none,
	// whom one made from the lease would: names are looked up in the image.
	User(ctx context.Context, lease Lease) (User, error)
	// Prepare makes snapshot and container where they are missing, the FIFOs and
	// the files of /etc. A snapshot that is there is used again.
	Prepare(ctx context.Context, c Creation) error
	// Delete deletes container, the files of /etc and, unless the disk is kept,
	// the snapshot.
	Delete(ctx context.Context, tenant string, uid spec.UID, disk Disk) error
}

// Tasks makes and ends the one task of a container.
type Tasks interface {
	// CreateTask makes the task, created and waiting, and returns its pid. A task
	// that waits or runs already is left alone.
	CreateTask(ctx context.Context, tenant string, uid spec.UID) (pid int, err error)
	// StartTask lets a waiting task run; one that runs is left alone.
	StartTask(ctx context.Context, tenant string, uid spec.UID) error
	// StopTask sends the image's stop signal and waits; it returns without error
	// when the task ended within grace and with a timeout fault when it did not.
	StopTask(ctx context.Context, tenant string, uid spec.UID, grace time.Duration) error
	// AwaitExit waits until the task has ended and says how: nil when there is no
	// task or it was never started, unknown when the status was lost.
	AwaitExit(ctx context.Context, tenant string, uid spec.UID) (*spec.ExitStatus, error)
	// DeleteTask deletes the ended task with its FIFOs; the status it had must be
	// recorded before.
	DeleteTask(ctx context.Context, tenant string, uid spec.UID) error
}

// Disk says what becomes of an instance's writable layer.
type Disk string

// What becomes of it.
const (
	KeepDisk   Disk = "keep"
	DeleteDisk Disk = "delete"
)

// Creation is all that a container is made from. Env holds resolved secrets and
// is therefore no JSON.
type Creation struct {
	Lease       Lease
	User        User // as Containers.User gives it
	Fingerprint Fingerprint
	Nodes       []Node
	Controllers []string
	DriverTree  string            // the tenant's own copy; "" for none
	Env         map[string]string `json:"-"`
}

// ContainerState is what containerd has of one instance.
type ContainerState struct {
	Snapshot bool `json:"snapshot"`
	// DiskImage is [Fingerprint.Image] of the lease the snapshot was made from.
	DiskImage   string      `json:"diskImage,omitempty"`
	ImageDigest string      `json:"imageDigest,omitempty"` // of the manifest the container was made from
	Container   bool        `json:"container"`
	User        User        `json:"user,omitzero"` // whom the container runs as
	Generation  uint64      `json:"generation,omitempty"`
	Fingerprint Fingerprint `json:"fingerprint,omitzero"` // of the lease the container was made from
	Task        Task        `json:"task"`
}

// Task is the one task of a container.
type Task struct {
	Status TaskStatus `json:"status"`
	Pid    int        `json:"pid,omitempty"`
	// Exit is set when Status is TaskExited, unless the task was never started.
	Exit *spec.ExitStatus `json:"exit,omitempty"`
}

// TaskStatus is where a task stands.
type TaskStatus string

// The states of a task. TaskExited with an unknown exit is also what a task is
// called that was started once and that containerd has forgotten.
const (
	TaskNone    TaskStatus = ""
	TaskCreated TaskStatus = "created" // made, waiting for start
	TaskRunning TaskStatus = "running"
	TaskExited  TaskStatus = "exited"
)
