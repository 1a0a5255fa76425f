package config

import (
	"net/netip"
	"time"

	"github.com/gpuhost/gpuhost/agent/spec"
)

// Config is every setting in force. Make one with [Load] or [Default].
type Config struct {
	Metrics   Metrics
	Telemetry Telemetry
	Log       Log
	Runtime   Runtime
	Programs  Programs
	UIDs      UIDs
	Network   Network
	Audit     Audit
	API       API
	Tenants   Tenants
	Instances Instances
	Images    Images

	origins map[string]string // by key; a missing one is the default
}

// Metrics says where Prometheus scrapes.
type Metrics struct {
	Listen string // host:port, "" for nowhere
}

// Log says what is logged and how.
type Log struct {
	Level  string // debug, info, warn, error
	Format string // text, json
}

// Runtime says which containerd is used.
type Runtime struct {
	Dir     string // folder of containerd, its shim and runc
	Address string // socket of a running gpuhost-runtime; "" starts our own
	Cgroup  string // that a unit keeps for tenants, below cgroup v2's mount; "" makes our own
}

// Programs are the paths of the processes that stand beside the agent.
type Programs struct {
	NVMLHelper string
	Warden     string
}

// UIDs is the pool that tenants' ranges of 65,536 host ids are cut from, and whom the
// agent's own small processes become.
type UIDs struct {
	PoolStart uint32
	PoolSize  uint32
	Wardens   uint32
}

// Network is what tenants' networks share with the operator's.
type Network struct {
	Protected   []netip.Prefix   // the operator's own; no tenant originates traffic to them
	Uplink      string           // interface; "" is any
	TransitPool netip.Prefix     // links between the host and its VPCs
	Publish     []spec.PortRange // ports of the host that tenants may publish on
	UpstreamDNS []netip.Addr     // empty is the host's own resolv.conf
	MTU         int              // of tenants' interfaces; 0 is 1,400
}

// Telemetry says which names metrics have.
type Telemetry struct {
	DCGM          bool   // also those of the DCGM exporter
	HostnameLabel string // how their label of the host's name is spelled
}

// Audit says how often isolation is proved and what follows from a failure.
type Audit struct {
	Interval time.Duration
	Policy   string // fence, report
}

// API names the groups that may use the socket.
type API struct {
	Group     string // reads and writes
	ViewGroup string // reads
}

// Tenants maps local users to tenants.
type Tenants struct {
	UIDs map[string]string // local uid in decimal, tenant
}

// Instances are the resources of an instance that names none and holds no GPU;
// with GPUs it gets their share of the host.
type Instances struct {
	CPUs   spec.CPU
	Memory spec.Bytes
	Pids   int
	Shm    spec.Bytes
}

// Images says when unused images are collected: above High percent of the disk,
// until Low; and which of the host's own addresses are registries.
type Images struct {
	DiskHigh        int
	DiskLow         int
	LocalRegistries []netip.AddrPort
}

// Audit policies.
const (
	PolicyFence  = "fence"
	PolicyReport = "report"
)

// Default is every setting as it is without any file.
func Default() *Config {
	return &Config{
		Metrics:   Metrics{Listen: "127.0.0.1:9877"},
		Telemetry: Telemetry{DCGM: true, HostnameLabel: "hostname"},
		Log:       Log{Level: "info", Format: "text"},
		Runtime:   Runtime{Dir: "/usr/libexec/gpuhost"},
		Programs:  Programs{NVMLHelper: "/usr/libexec/gpuhost/nvml-helper", Warden: "/usr/libexec/gpuhost/warden"},
		UIDs:      UIDs{PoolStart: 1_879_048_192, PoolSize: 268_304_384, Wardens: 2_147_418_112},
		Network:   Network{TransitPool: netip.MustParsePrefix("100.127.0.0/16"), Publish: []spec.PortRange{{First: 1024, Last: 65535}}},
		Audit:     Audit{Interval: 50 * time.Second, Policy: PolicyFence},
		API:       API{Group: "gpuhost", ViewGroup: "gpuhost-view"},
		Instances: Instances{
			CPUs: 1000, Memory: 512 << 20, Pids: 1024, Shm: 64 << 20,
		},
		Images: Images{DiskHigh: 85, DiskLow: 75},
	}
}
