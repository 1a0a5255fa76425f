package spec

import (
	"slices"
	"time"
)

// APIVersion is the only version of the resources there is.
const APIVersion = "gpuhost/v1"

// Kind names a kind of resource.
type Kind string

// The kinds of the contract.
const (
	KindHost          Kind = "Host"
	KindTenant        Kind = "Tenant"
	KindInstance      Kind = "Instance"
	KindSecret        Kind = "Secret"
	KindVolume        Kind = "Volume"
	KindNetwork       Kind = "Network"
	KindSubnet        Kind = "Subnet"
	KindSecurityGroup Kind = "SecurityGroup"
	KindNetworkACL    Kind = "NetworkACL"
	KindFloatingIP    Kind = "FloatingIP"
	KindLoadBalancer  Kind = "LoadBalancer"
)

// UID identifies an object for ever. Kernel names, ledger and usage records are
// made from it: 8 lower-case base-32 characters, so that a prefix and a UID fit
// the 15 bytes of an interface name.
type UID string

// Source is who owns an object. Another source's write is a conflict, except
// that anybody may take over a default.
type Source string

// The sources.
const (
	SourceFile    Source = "file"
	SourceAPI     Source = "api"
	SourceEtcd    Source = "etcd"
	SourceDefault Source = "default"
)

// Ref names an object the way people do. Tenant is empty for Host and Tenant.
type Ref struct {
	Kind   Kind   `json:"kind"`
	Tenant string `json:"tenant,omitempty"`
	Name   string `json:"name"`
}

// String gives "instance acme/train-1" or "tenant acme".
func (r Ref) String() string {
	if r.Tenant == "" {
		return r.Kind.Lower() + " " + r.Name
	}
	return r.Kind.Lower() + " " + r.Tenant + "/" + r.Name
}

// Metadata is common to all objects. UID, CreatedAt, Generation and Source are
// set by the store alone.
type Metadata struct {
	Tenant     string            `json:"tenant,omitempty" yaml:"tenant"`
	Name       string            `json:"name" yaml:"name"`
	Labels     map[string]string `json:"labels,omitempty" yaml:"labels"`
	UID        UID               `json:"uid,omitempty" yaml:"uid"`
	CreatedAt  time.Time         `json:"createdAt,omitzero" yaml:"createdAt"`
	Generation uint64            `json:"generation,omitempty" yaml:"generation"`
	Source     Source            `json:"source,omitempty" yaml:"source"`
	// DeletedAt is when deletion was asked for; the object goes once nothing of it is left on the host.
	DeletedAt *time.Time `json:"deletedAt,omitempty" yaml:"deletedAt"`
}

// Object is one resource. Spec is a pointer to the kind's own type below.
type Object struct {
	APIVersion string   `json:"apiVersion"`
	Kind       Kind     `json:"kind"`
	Metadata   Metadata `json:"metadata"`
	Spec       Spec     `json:"spec"`
	Status     *Status  `json:"status,omitempty"`
}

// Spec is what every kind's specification can do.
type Spec interface {
	// Kind is the kind this specification belongs to.
	Kind() Kind
}

// Ref names the object.
func (o *Object) Ref() Ref {
	return Ref{Kind: o.Kind, Tenant: o.Metadata.Tenant, Name: o.Metadata.Name}
}

// Phase is where an object stands, in one word.
type Phase string

// The phases of an instance; other kinds use Pending, Running (in force) and Failed.
const (
	PhasePending  Phase = "Pending"
	PhasePulling  Phase = "Pulling"
	PhaseStarting Phase = "Starting"
	PhaseRunning  Phase = "Running"
	PhaseStopping Phase = "Stopping"
	PhaseStopped  Phase = "Stopped"
	PhaseFailed   Phase = "Failed"
	PhaseFenced   Phase = "Fenced"
	PhaseUnknown  Phase = "Unknown"
)

// Condition is one observed aspect of an object.
type Condition struct {
	Type               string    `json:"type"` // "Ready", "NetworkReady", "LimitsReduced"
	Status             bool      `json:"status"`
	Reason             string    `json:"reason"`            // a CamelCase word for programs
	Message            string    `json:"message,omitempty"` // what, why and the next command
	ObservedGeneration uint64    `json:"observedGeneration"`
	Since              time.Time `json:"since"`
}

// Status is what the agent last saw of an object. Only Instances fill the part
// below Conditions.
type Status struct {
	ObservedGeneration uint64          `json:"observedGeneration"`
	Phase              Phase           `json:"phase"`
	Conditions         []Condition     `json:"conditions,omitempty"`
	Instance           *InstanceStatus `json:"instance,omitempty"`
}

// InstanceStatus is the part of Status that only instances have.
type InstanceStatus struct {
	ImageDigest string      `json:"imageDigest,omitempty"`
	Address     string      `json:"address,omitempty"`
	GPUs        []string    `json:"gpus,omitempty"` // UUIDs
	Pid         int         `json:"pid,omitempty"`
	StartedAt   time.Time   `json:"startedAt,omitzero"`
	Restarts    int         `json:"restarts"`
	LastExit    *ExitStatus `json:"lastExit,omitempty"`
	Published   []string    `json:"published,omitempty"`
}

// ExitStatus is how a task ended. Unknown is true when the status was lost with
// a containerd restart; Code is then meaningless.
type ExitStatus struct {
	Code    int       `json:"code"`
	Unknown bool      `json:"unknown,omitempty"`
	OOM     bool      `json:"oom,omitempty"`
	At      time.Time `json:"at"`
}

// SetCondition replaces the condition of the same type, keeping Since while the
// status stays the same.
func (s *Status) SetCondition(c Condition) {
	i := slices.IndexFunc(s.Conditions, func(have Condition) bool { return have.Type == c.Type })
	if i < 0 {
		s.Conditions = append(s.Conditions, c)
		return
	}
	if s.Conditions[i].Status == c.Status {
		c.Since = s.Conditions[i].Since
	}
	s.Conditions[i] = c
}

// Control is one isolation control read back from the kernel.
type Control struct {
	ID       string `json:"id"`   // "I1", "D2", "N1": the table in docs/isolation.md
	Name     string `json:"name"` // "user namespace with the tenant's own range"
	Expected string `json:"expected"`
	Found    string `json:"found"`
	Pass     bool   `json:"pass"`
	// Unknown says that what was to look could not: nothing is proved and nothing found.
	// It never passes.
	Unknown bool `json:"unknown,omitempty"`
}
