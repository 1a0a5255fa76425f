package api

import (
	"io"
	"time"

	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// Role is what a caller may do.
type Role string

// The roles. A caller without one may only ask for health.
const (
	RoleOperator Role = "operator" // reads and writes everything
	RoleViewer   Role = "viewer"   // reads everything
	RoleTenant   Role = "tenant"   // reads and writes its own tenant's objects
)

// Caller is who asks, as the kernel says it.
type Caller struct {
	UID    uint32 `json:"uid"`
	Name   string `json:"name"` // "root", "uid:1000": what events record as actor
	Role   Role   `json:"role,omitempty"`
	Tenant string `json:"tenant,omitempty"` // of RoleTenant
}

// ApplyOptions change how objects are stored.
type ApplyOptions struct {
	DryRun     bool   // validate and compare, store nothing
	CreateOnly bool   // an object that exists already is a conflict
	IfMatch    uint64 // of the single object given; 0 for any
}

// ApplyRequest stores objects, all or none.
type ApplyRequest struct {
	Objects []*spec.Object `json:"objects"`
	DryRun  bool           `json:"dryRun,omitempty"`
}

// Action is what an apply did to one object.
type Action string

// The actions.
const (
	ActionCreated   Action = "created"
	ActionChanged   Action = "changed"
	ActionUnchanged Action = "unchanged"
)

// Applied is the outcome for one object.
type Applied struct {
	Object *spec.Object `json:"object"` // as stored
	Action Action       `json:"action"`
}

// ApplyResult is the outcome for all objects of a request, in its order, and the
// changes under way because of them.
type ApplyResult struct {
	Objects []Applied   `json:"objects"`
	Changes []ChangeRef `json:"changes,omitempty"`
}

// ChangeRef names work under way. An empty ID means nothing had to be done.
type ChangeRef struct {
	ID     string   `json:"id"`
	Object spec.Ref `json:"object"`
}

// RunRequest creates Count instances from one template. Count 0 and 1 create
// one under the template's name; more are called name-1 … name-N. A template
// without a name gets one made from its image.
type RunRequest struct {
	Template *spec.Object `json:"template"`
	Count    int          `json:"count,omitempty"`
}

// PlanRequest holds the objects to plan or verify; none means the stored ones.
type PlanRequest struct {
	Objects []*spec.Object `json:"objects,omitempty"`
}

// PlanResult is what would change, object by object.
type PlanResult struct {
	Objects []PlannedObject `json:"objects"`
}

// PlannedObject is what would change for one object and why.
type PlannedObject struct {
	Object spec.Ref  `json:"object"`
	Action Action    `json:"action"`
	Diffs  []Diff    `json:"diffs,omitempty"` // against the stored object
	Plan   plan.Plan `json:"plan"`            // against the host
}

// Diff is one field that differs. Values are text as in YAML; empty is absent.
type Diff struct {
	Path string `json:"path"` // "spec.resources.memory"
	From string `json:"from"`
	To   string `json:"to"`
}

// Deviation is one point in which the host is not as wanted.
type Deviation struct {
	Object spec.Ref `json:"object"`
	What   string   `json:"what"` // "phase", "control D2", "spec.image"
	Want   string   `json:"want"`
	Found  string   `json:"found"`
}

// Verb is something done to an instance.
type Verb string

// The verbs that are built.
const (
	VerbStart   Verb = "start"
	VerbStop    Verb = "stop"
	VerbRestart Verb = "restart"
)

// LogOptions choose a part of an instance's log.
type LogOptions struct {
	Follow bool
	Since  time.Time // zero: from the start of what is kept
	Tail   int       // last lines only; 0 for all
}

// Log is text that an instance wrote; whoever gets it closes it.
type Log struct {
	io.ReadCloser
	DeletedAt time.Time // when the instance had gone; zero of one that is there
}

// ExecRequest runs a command in a running instance.
type ExecRequest struct {
	Command []string `json:"command"`
	TTY     bool     `json:"tty,omitempty"`
	Stdin   bool     `json:"stdin,omitempty"` // the caller will send input
	Cols    uint16   `json:"cols,omitempty"`  // of the terminal
	Rows    uint16   `json:"rows,omitempty"`
	User    string   `json:"user,omitempty"` // "uid[:gid]"; empty: the instance's
}

// Image is one image in a tenant's store.
type Image struct {
	Tenant    string    `json:"tenant"`
	Name      string    `json:"name"`
	Digest    string    `json:"digest"`
	Bytes     int64     `json:"bytes"`
	CreatedAt time.Time `json:"createdAt,omitzero"` // when it came to this host
	UsedBy    []string  `json:"usedBy,omitempty"`   // names of the tenant's instances
}

// PullRequest fetches an image before it is needed.
type PullRequest struct {
	Tenant string `json:"tenant"`
	Image  string `json:"image"`
	Secret string `json:"secret,omitempty"` // of the tenant, with username and password
}

// ImportRequest names where an archive goes.
type ImportRequest struct {
	Tenant string
	Name   string // empty: the names in the archive
	Size   int64  // bytes of the archive, -1 when unknown
}

// PruneResult is what a prune removed.
type PruneResult struct {
	Removed    []Image `json:"removed"`
	FreedBytes int64   `json:"freedBytes"`
}

// GPU is a device with its place in the ledger and its last measurement.
type GPU struct {
	gpu.Device
	State    string      `json:"state"` // of the ledger: "Free", "Assigned", …
	Tenant   string      `json:"tenant,omitempty"`
	Instance string      `json:"instance,omitempty"`
	Reason   string      `json:"reason,omitempty"`
	Since    time.Time   `json:"since,omitzero"`
	Sample   *gpu.Sample `json:"sample,omitempty"`
}

// GPUAction is what an operator does to a GPU.
type GPUAction string

// The actions on a GPU.
const (
	GPUQuarantine GPUAction = "quarantine"
	GPURelease    GPUAction = "release"
)

// GPUActionRequest takes a GPU out of use or back in.
type GPUActionRequest struct {
	Action GPUAction `json:"action"`
	Reason string    `json:"reason,omitempty"`
}

// HostStatus is the machine at a glance.
type HostStatus struct {
	Hostname  string       `json:"hostname"`
	HostID    string       `json:"hostId"`
	Version   string       `json:"version"`
	StartedAt time.Time    `json:"startedAt"` // of the agent
	Ready     bool         `json:"ready"`     // every running instance is proved guarded
	Converged bool         `json:"converged"`
	Kernel    string       `json:"kernel"`
	Driver    string       `json:"driver,omitempty"`
	Sim       string       `json:"sim,omitempty"` // the simulated machine, when it is one
	Capacity  Capacity     `json:"capacity"`
	Instances PhaseCounts  `json:"instances"`
	Problems  []Problem    `json:"problems,omitempty"`
	Parts     []PartStatus `json:"parts,omitempty"`
}

// Capacity is what the host has and what is promised to instances.
type Capacity struct {
	GPUs           int        `json:"gpus"`
	GPUsFree       int        `json:"gpusFree"`
	CPUs           spec.CPU   `json:"cpus"`
	CPUsPromised   spec.CPU   `json:"cpusPromised"`
	Memory         spec.Bytes `json:"memory"`
	MemoryPromised spec.Bytes `json:"memoryPromised"`
}

// PhaseCounts is the number of instances in each phase.
type PhaseCounts map[spec.Phase]int

// Problem is something a person should know or mend.
type Problem struct {
	Name    string    `json:"name"`
	Message string    `json:"message"`
	Hint    string    `json:"hint,omitempty"`
	Since   time.Time `json:"since"`
}

// PartStatus is one part of the agent: "containerd", "nvml-helper", "services".
type PartStatus struct {
	Name    string `json:"name"`
	Ready   bool   `json:"ready"`
	Message string `json:"message,omitempty"`
}

// AuditReport is one instance's controls as read from the kernel.
type AuditReport struct {
	Object   spec.Ref       `json:"object"`
	At       time.Time      `json:"at"`
	Pass     bool           `json:"pass"`
	Controls []spec.Control `json:"controls"`
}

// CheckState is how a doctor's check ended.
type CheckState string

// The outcomes of a check.
const (
	CheckPass CheckState = "pass"
	CheckWarn CheckState = "warn"
	CheckFail CheckState = "fail"
)

// CheckResult is one check of doctor.
type CheckResult struct {
	Name    string     `json:"name"`
	State   CheckState `json:"state"`
	Message string     `json:"message"`
	Hint    string     `json:"hint,omitempty"`
}

// Setting is one value of the agent's configuration.
type Setting struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Origin string `json:"origin"` // "default", a file with line, "flag"
}

// SimFault is a way in which a simulated GPU breaks.
type SimFault string

// The faults that can be simulated.
const (
	SimXID         SimFault = "xid"         // the driver logs an XID; the value is its code
	SimHang        SimFault = "hang"        // NVML never comes back from a question about it
	SimECC         SimFault = "ecc"         // the value is how many memory errors are not corrected
	SimTemperature SimFault = "temperature" // the value is in degrees Celsius
	SimUnplug      SimFault = "unplug"      // it falls off the bus
)

// SimFaults are all there are.
func SimFaults() []SimFault { return []SimFault{SimXID, SimHang, SimECC, SimTemperature, SimUnplug} }

// SimRequest breaks one simulated GPU.
type SimRequest struct {
	Fault SimFault `json:"fault"`
	GPU   gpu.UUID `json:"gpu"`
	Value uint32   `json:"value,omitempty"`
}

// ReloadResult is what a reload left for a restart.
type ReloadResult struct {
	Waiting []string `json:"waiting,omitempty"` // settings that differ and are not in force
}

// Event is one thing that happened. Numbers grow, never repeat, and jump where the
// agent was restarted: a reader that goes on behind the last it saw misses nothing.
type Event struct {
	Seq     uint64    `json:"seq"`
	At      time.Time `json:"at"`
	Type    string    `json:"type"` // "normal" or "warning"
	Reason  string    `json:"reason"`
	Message string    `json:"message"`
	Object  spec.Ref  `json:"object,omitzero"`
	UID     spec.UID  `json:"uid,omitempty"`
	Actor   string    `json:"actor,omitempty"`
}

// EventQuery chooses events. All conditions that are set must hold.
type EventQuery struct {
	After  uint64    // sequence number; 0 from the oldest kept
	Since  time.Time // zero for any
	Limit  int       // of Events: at most so many, the latest; 0 for the server's own limit
	Tenant string    // only events of this tenant's objects; empty for all
}

// ChangeQuery chooses changes.
type ChangeQuery struct {
	Limit  int
	Tenant string // empty for all
}

// ChangeState is how far a change or one of its steps is.
type ChangeState string

// The states of changes and steps.
const (
	ChangePending ChangeState = "pending"
	ChangeRunning ChangeState = "running"
	ChangeDone    ChangeState = "done"
	ChangeFailed  ChangeState = "failed"
	// ChangeSuperseded is a change that a newer one of the same object took over.
	ChangeSuperseded ChangeState = "superseded"
)

// Ended says whether the state is final.
func (s ChangeState) Ended() bool {
	return s == ChangeDone || s == ChangeFailed || s == ChangeSuperseded
}

// Change is slow work with its steps.
type Change struct {
	ID     string       `json:"id"`
	At     time.Time    `json:"at"`
	Actor  string       `json:"actor"`
	Object spec.Ref     `json:"object"`
	Verb   string       `json:"verb"`
	State  ChangeState  `json:"state"`
	Steps  []ChangeStep `json:"steps,omitempty"`
	Error  string       `json:"error,omitempty"`
	Code   string       `json:"code,omitempty"` // the kind of fault of Error
	Hint   string       `json:"hint,omitempty"`
}

// ChangeStep is one step of a change.
type ChangeStep struct {
	ID        string         `json:"id"`
	Title     string         `json:"title"`
	Why       string         `json:"why,omitempty"`
	State     ChangeState    `json:"state"`
	StartedAt time.Time      `json:"startedAt,omitzero"`
	Duration  spec.Duration  `json:"duration,omitempty"`
	Error     string         `json:"error,omitempty"`
	Progress  *plan.Progress `json:"progress,omitempty"`
}
