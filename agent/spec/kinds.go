package spec

import "strings"

// Lower is the kind as used in commands and messages: "securitygroup".
func (k Kind) Lower() string { return strings.ToLower(string(k)) }

// HostSpec is the singleton "this": what the operator decides for the machine.
type HostSpec struct {
	Driver     *DriverSpec    `json:"driver,omitempty" yaml:"driver"`
	Reserved   ReservedSpec   `json:"reserved" yaml:"reserved"`
	Overcommit OvercommitSpec `json:"overcommit" yaml:"overcommit"`
	MIG        []MIGLayout    `json:"mig,omitempty" yaml:"mig"`
	Handover   HandoverSpec   `json:"handover" yaml:"handover"`
}

// DriverSpec is the GPU driver wanted. Not built yet: refused as unsupported.
type DriverSpec struct {
	Version string `json:"version,omitempty" yaml:"version"`
	Flavour string `json:"flavour,omitempty" yaml:"flavour"`
	Source  string `json:"source,omitempty" yaml:"source"`
	Drain   string `json:"drain,omitempty" yaml:"drain"`
	Reboot  string `json:"reboot,omitempty" yaml:"reboot"`
}

// ReservedSpec is kept for the host itself.
type ReservedSpec struct {
	CPUs   CPU   `json:"cpus" yaml:"cpus"`
	Memory Bytes `json:"memory" yaml:"memory"`
}

// OvercommitSpec: factors of the host's capacity that may be promised. Memory never is.
type OvercommitSpec struct {
	CPU float64 `json:"cpu" yaml:"cpu"`
}

// MIGLayout is one GPU's partition. Not built yet: refused as unsupported.
type MIGLayout struct {
	GPU    string   `json:"gpu" yaml:"gpu"`
	Layout []string `json:"layout" yaml:"layout"`
}

// HandoverSpec says what happens with a GPU that cannot be reset: quarantine or allow.
type HandoverSpec struct {
	WithoutReset string `json:"withoutReset" yaml:"withoutReset"`
}

// TenantSpec is a customer.
type TenantSpec struct {
	Quota QuotaSpec `json:"quota" yaml:"quota"`
}

// QuotaSpec bounds a tenant; nil is unbounded.
type QuotaSpec struct {
	Instances *int   `json:"instances,omitempty" yaml:"instances"`
	GPUs      *int   `json:"gpus,omitempty" yaml:"gpus"`
	CPUs      *CPU   `json:"cpus,omitempty" yaml:"cpus"`
	Memory    *Bytes `json:"memory,omitempty" yaml:"memory"`
}

// Desired states of an instance.
const (
	StateRunning = "running"
	StateStopped = "stopped"
)

// Pull policies.
const (
	PullMissing = "missing"
	PullAlways  = "always"
	PullNever   = "never"
)

// Restart policies.
const (
	RestartOnFailure = "on-failure"
	RestartAlways    = "always"
	RestartNever     = "never"
)

// Isolation tiers; only container is built.
const (
	TierContainer = "container"
	TierSandbox   = "sandbox"
	TierVM        = "vm"
)

// InstanceSpec is a tenant's GPU cloud server.
type InstanceSpec struct {
	Image      string              `json:"image" yaml:"image"`
	PullPolicy string              `json:"pullPolicy,omitempty" yaml:"pullPolicy"`
	PullSecret string              `json:"pullSecret,omitempty" yaml:"pullSecret"`
	Command    []string            `json:"command,omitempty" yaml:"command"`
	Env        map[string]EnvValue `json:"env,omitempty" yaml:"env"`
	User       string              `json:"user,omitempty" yaml:"user"`
	State      string              `json:"state,omitempty" yaml:"state"`
	Restart    string              `json:"restart,omitempty" yaml:"restart"`
	Isolation  string              `json:"isolation,omitempty" yaml:"isolation"`
	Resources  ResourcesSpec       `json:"resources" yaml:"resources"`
	StopGrace  Duration            `json:"stopGrace,omitempty" yaml:"stopGrace"`
	GPUs       GPURequest          `json:"gpus" yaml:"gpus"`
	Network    InstanceNetwork     `json:"network" yaml:"network"`
	Publish    []Publish           `json:"publish,omitempty" yaml:"publish"`
	SSHKeys    []string            `json:"sshKeys,omitempty" yaml:"sshKeys"`
	UserData   string              `json:"userData,omitempty" yaml:"userData"`
	Volumes    []VolumeMount       `json:"volumes,omitempty" yaml:"volumes"`
	// RestartedAt changes when a restart is asked for; the verb writes it.
	RestartedAt string `json:"restartedAt,omitempty" yaml:"restartedAt"`
}

// EnvValue is a literal or a reference to one key of a secret, "name/key".
// In YAML and JSON it is a string or {secret: name/key}.
type EnvValue struct {
	Value  string
	Secret string
}

// ResourcesSpec limits an instance; a zero value means the host's share by GPUs
// held, else a small default, and is filled in when the instance is stored.
type ResourcesSpec struct {
	CPUs   CPU   `json:"cpus,omitempty" yaml:"cpus"`
	Memory Bytes `json:"memory,omitempty" yaml:"memory"`
	Pids   int64 `json:"pids,omitempty" yaml:"pids"`
	Shm    Bytes `json:"shm,omitempty" yaml:"shm"`
	Disk   Bytes `json:"disk,omitempty" yaml:"disk"`
}

// GPURequest asks for whole GPUs, or for slices when MIG names a profile.
type GPURequest struct {
	Count int    `json:"count,omitempty" yaml:"count"`
	Model string `json:"model,omitempty" yaml:"model"`
	MIG   string `json:"mig,omitempty" yaml:"mig"`
}

// InstanceNetwork binds an instance to a subnet and to security groups, in order.
type InstanceNetwork struct {
	Subnet         string        `json:"subnet,omitempty" yaml:"subnet"`
	SecurityGroups []string      `json:"securityGroups,omitempty" yaml:"securityGroups"`
	Address        string        `json:"address,omitempty" yaml:"address"`
	Bandwidth      BandwidthSpec `json:"bandwidth,omitzero" yaml:"bandwidth"`
}

// BandwidthSpec in bits per second. Not built yet: refused as unsupported.
type BandwidthSpec struct {
	Ingress BitRate `json:"ingress,omitempty" yaml:"ingress"`
	Egress  BitRate `json:"egress,omitempty" yaml:"egress"`
}

// Publish is one host port given to an instance: "2222:22/tcp" in text.
type Publish struct {
	HostPort uint16
	Port     uint16
	Protocol string // tcp or udp
}

// VolumeMount mounts a volume. Not built yet: refused as unsupported.
type VolumeMount struct {
	Volume string `json:"volume" yaml:"volume"`
	Path   string `json:"path" yaml:"path"`
}

// SecretSpec holds values that are never shown again.
type SecretSpec struct {
	Data map[string]string `json:"data" yaml:"data"`
}

// Redacted stands in the place of a secret's value wherever it is shown.
const Redacted = "(redacted)"

// VolumeSpec is a disk of its own. Not built yet: refused as unsupported.
type VolumeSpec struct {
	Size             Bytes  `json:"size" yaml:"size"`
	OnInstanceDelete string `json:"onInstanceDelete,omitempty" yaml:"onInstanceDelete"`
}

// NetworkSpec is a VPC.
type NetworkSpec struct {
	CIDR string `json:"cidr" yaml:"cidr"`
}

// SubnetSpec is a part of a VPC.
type SubnetSpec struct {
	Network string `json:"network" yaml:"network"`
	CIDR    string `json:"cidr" yaml:"cidr"`
	ACL     string `json:"acl" yaml:"acl"`
}

// Rule is one line of a security group or network ACL, as written. Package
// network/policy gives it meaning; what spec accepts, policy can parse.
type Rule struct {
	Action   string `json:"action" yaml:"action"`                     // accept, drop
	Protocol string `json:"protocol" yaml:"protocol"`                 // tcp, udp, icmp, icmpv6, gre, all
	Ports    string `json:"ports,omitempty" yaml:"ports"`             // "22,80,8000-9000"
	Source   string `json:"sourcePorts,omitempty" yaml:"sourcePorts"` // network ACLs only
	Remote   string `json:"remote" yaml:"remote"`                     // CIDR, "a-b", "sg:name", any
}

// SecurityGroupSpec is stateful and per instance: first match decides, what
// nothing matches is dropped.
type SecurityGroupSpec struct {
	Ingress []Rule `json:"ingress,omitempty" yaml:"ingress"`
	Egress  []Rule `json:"egress,omitempty" yaml:"egress"`
}

// NetworkACLSpec is stateless and per subnet. Not built yet: refused as unsupported.
type NetworkACLSpec struct {
	Ingress []Rule `json:"ingress,omitempty" yaml:"ingress"`
	Egress  []Rule `json:"egress,omitempty" yaml:"egress"`
}

// FloatingIPSpec binds a public address. Not built yet: refused as unsupported.
type FloatingIPSpec struct {
	Address  string `json:"address" yaml:"address"`
	Instance string `json:"instance,omitempty" yaml:"instance"`
}

// LoadBalancerSpec is an L4 balancer. Not built yet: refused as unsupported.
type LoadBalancerSpec struct {
	Address   string     `json:"address" yaml:"address"`
	Listeners []Listener `json:"listeners" yaml:"listeners"`
}

// Listener is one port of a balancer.
type Listener struct {
	Port        uint16      `json:"port" yaml:"port"`
	Protocol    string      `json:"protocol" yaml:"protocol"`
	TargetPort  uint16      `json:"targetPort" yaml:"targetPort"`
	Policy      string      `json:"policy,omitempty" yaml:"policy"`
	Backends    Backends    `json:"backends" yaml:"backends"`
	HealthCheck HealthCheck `json:"healthCheck" yaml:"healthCheck"`
}

// Backends selects instances by label.
type Backends struct {
	Labels map[string]string `json:"labels" yaml:"labels"`
}

// HealthCheck probes a backend.
type HealthCheck struct {
	Type     string   `json:"type" yaml:"type"`
	Interval Duration `json:"interval" yaml:"interval"`
	Fall     int      `json:"fall" yaml:"fall"`
	Rise     int      `json:"rise" yaml:"rise"`
}

// Kind implements Spec.
func (*HostSpec) Kind() Kind { return KindHost }

// Kind implements Spec.
func (*TenantSpec) Kind() Kind { return KindTenant }

// Kind implements Spec.
func (*InstanceSpec) Kind() Kind { return KindInstance }

// Kind implements Spec.
func (*SecretSpec) Kind() Kind { return KindSecret }

// Kind implements Spec.
func (*VolumeSpec) Kind() Kind { return KindVolume }

// Kind implements Spec.
func (*NetworkSpec) Kind() Kind { return KindNetwork }

// Kind implements Spec.
func (*SubnetSpec) Kind() Kind { return KindSubnet }

// Kind implements Spec.
func (*SecurityGroupSpec) Kind() Kind { return KindSecurityGroup }

// Kind implements Spec.
func (*NetworkACLSpec) Kind() Kind { return KindNetworkACL }

// Kind implements Spec.
func (*FloatingIPSpec) Kind() Kind { return KindFloatingIP }

// Kind implements Spec.
func (*LoadBalancerSpec) Kind() Kind { return KindLoadBalancer }
