// Package isolation thinks about what one instance's container is granted: it
// turns a lease into steps. Its sub-packages touch containerd, cgroups, device
// programs and /proc.
package isolation

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// IDRange is a tenant's own range of host uids and gids; container id 0 is
// Start. Size is always 65,536.
type IDRange struct {
	Start uint32 `json:"start"`
	Size  uint32 `json:"size"`
}

// Contains says whether a host id belongs to the range.
func (r IDRange) Contains(id uint32) bool { return id >= r.Start && id-r.Start < r.Size }

// Want is what an instance's container should be.
type Want string

// The wanted states.
const (
	WantRunning Want = "running"
	WantStopped Want = "stopped" // container and disk stay, no task
	WantFenced  Want = "fenced"  // a running task stays, with every device denied
	WantAbsent  Want = "absent"  // nothing stays
)

// Lease is everything that decides one instance's container, as plain data and
// without secrets: Env values that come from a secret are references, resolved
// by the Secrets port when the container is made.
type Lease struct {
	UID        spec.UID `json:"uid"`
	Tenant     string   `json:"tenant"`
	Name       string   `json:"name"` // also the hostname
	Generation uint64   `json:"generation"`
	Want       Want     `json:"want"`
	IDs        IDRange  `json:"ids"`

	Image      string                   `json:"image"`
	PullPolicy string                   `json:"pullPolicy"`
	PullSecret string                   `json:"pullSecret,omitempty"`
	Command    []string                 `json:"command,omitempty"` // empty: the image's own entrypoint
	Env        map[string]spec.EnvValue `json:"env,omitempty"`
	User       string                   `json:"user,omitempty"` // "uid[:gid]"; empty: the image's

	Limits    Limits        `json:"limits"`
	StopGrace time.Duration `json:"stopGrace"`
	GPUs      []Device      `json:"gpus,omitempty"`
	// Nameserver is the resolver written to /etc/resolv.conf, "" for none.
	Nameserver string `json:"nameserver,omitempty"`
	// RestartToken differs when the operator asked for a restart.
	RestartToken string `json:"restartToken,omitempty"`
}

// User is whom the first process of an instance runs as, inside its user
// namespace.
type User struct {
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
}

// As is the lease with its user settled: a lease may leave the user to its
// image, or name one that only the image knows.
func (l Lease) As(user User) Lease {
	l.User = fmt.Sprintf("%d:%d", user.UID, user.GID)
	return l
}

// NodeOwner is the host id that the instance's device nodes belong to: the user
// its process runs as, because the nodes are 0600 and a user other than root
// could not open root's. A lease whose user is not settled says the mapped root
// where it does not give a number.
func (l Lease) NodeOwner() uint32 {
	user, _, _ := strings.Cut(l.User, ":")
	uid, err := strconv.ParseUint(user, 10, 32)
	if err != nil || uid >= uint64(l.IDs.Size) {
		return l.IDs.Start
	}
	return l.IDs.Start + uint32(uid)
}

// Limits of one instance. Zero is unlimited only where the plan says why
// (a controller this machine lacks).
type Limits struct {
	CPU    spec.CPU   `json:"cpu"`
	Memory spec.Bytes `json:"memory"`
	Pids   int64      `json:"pids"`
	Shm    spec.Bytes `json:"shm"`
	CPUSet string     `json:"cpuSet,omitempty"` // CPUs local to the GPUs, "" for any
}

// LeftOut names the limits that cannot be set for lack of their cgroup
// controller, in a fixed order.
func LeftOut(l Limits, controllers []string) []string {
	var left []string
	for _, limit := range []struct {
		controller string
		wanted     bool
	}{{"cpu", l.CPU > 0}, {"cpuset", l.CPUSet != ""}, {"memory", l.Memory > 0}, {"pids", l.Pids > 0}} {
		if limit.wanted && !slices.Contains(controllers, limit.controller) {
			left = append(left, limit.controller)
		}
	}
	return left
}

// Device is one GPU node an instance may open.
type Device struct {
	UUID  gpu.UUID `json:"uuid"`
	Minor uint32   `json:"minor"` // container sees /dev/nvidia<Minor>, major 195
}

// NVIDIA's fixed device numbers.
const (
	MajorNVIDIA  = 195
	MinorControl = 255 // nvidiactl
)

// Paths are where one host's isolation keeps its things; all derive from the
// agent's root.
type Paths struct {
	Nodes       string // tmpfs, private: <nodes>/<uid>/nvidia0 …
	Netns       string // pins: <netns>/<uid>
	IO          string // FIFOs of tasks: <io>/<uid>/
	Logs        string // <logs>/<uid>/
	DriverTree  string // of one tenant, mounted read-only at /usr/local/nvidia; "" for none
	Etc         string // resolv.conf, hosts and hostname of each instance
	CgroupRoot  string // below the v2 mount: "/gpuhost-<hostid>"
	CgroupMount string // where cgroup v2 is mounted: "/sys/fs/cgroup"
	Warden      string // the warden binary
}

// Cgroup is the instance's parent cgroup below the v2 mount: "/gpuhost-1f…/<uid>".
func (p Paths) Cgroup(uid spec.UID) string { return path.Join(p.CgroupRoot, string(uid)) }

// TaskCgroup is the leaf below [Paths.Cgroup] that runc makes for the task.
func (p Paths) TaskCgroup(uid spec.UID) string { return path.Join(p.Cgroup(uid), "task") }

// CanaryCgroup is the leaf's sibling, in which canaries run: below the same outer
// program, beside the tenant's limits.
func (p Paths) CanaryCgroup(uid spec.UID) string { return path.Join(p.Cgroup(uid), "canary") }

// CgroupDir is the parent cgroup's folder in the file system.
func (p Paths) CgroupDir(uid spec.UID) string { return path.Join(p.CgroupMount, p.Cgroup(uid)) }

// NodeDir is the folder of the instance's private device nodes.
func (p Paths) NodeDir(uid spec.UID) string { return path.Join(p.Nodes, string(uid)) }

// Pin is where the task's network namespace is bound.
func (p Paths) Pin(uid spec.UID) string { return path.Join(p.Netns, string(uid)) }

// IODir is the folder of the task's FIFOs, which are named [Stdout] and [Stderr].
func (p Paths) IODir(uid spec.UID) string { return path.Join(p.IO, string(uid)) }

// LogDir is the folder of the instance's logs.
func (p Paths) LogDir(uid spec.UID) string { return path.Join(p.Logs, string(uid)) }

// EtcDir is the folder of the instance's hosts, hostname and resolv.conf.
func (p Paths) EtcDir(uid spec.UID) string { return path.Join(p.Etc, string(uid)) }

// Names of the FIFOs in [Paths.IODir]. Standard input of a task is empty.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// Grant lists the device nodes a lease lets its container open, in a fixed
// order: none without a GPU, else nvidiactl, nvidia-uvm and each GPU's own.
// uvmMajor is nvidia-uvm's dynamic major of /proc/devices, 0 where no such
// driver is loaded. Nothing else is ever granted (D5).
func Grant(lease Lease, uvmMajor uint32) []Node {
	if len(lease.GPUs) == 0 {
		return nil
	}
	nodes := []Node{{Name: "nvidiactl", Major: MajorNVIDIA, Minor: MinorControl}}
	if uvmMajor != 0 {
		nodes = append(nodes, Node{Name: "nvidia-uvm", Major: uvmMajor})
	}
	for _, d := range lease.GPUs {
		nodes = append(nodes, Node{Name: "nvidia" + strconv.FormatUint(uint64(d.Minor), 10), Major: MajorNVIDIA, Minor: d.Minor})
	}
	return nodes
}
