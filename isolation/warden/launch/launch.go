// Package launch starts, finds and ends the wardens: processes that must outlive
// the agent, so nothing of the agent's holds on to them and nothing but the
// kernel is asked whether they live.
//
//	l := launch.New(launch.Config{Paths: paths})
//	err := l.StartLog(ctx, uid)
//
// A warden leads a session of its own, in a cgroup of its own (never the
// tenant's, never the agent's unit), with /dev/null for stdio, one processor of
// Go's and nothing inherited. [Launcher] is the Wardens port of the isolation room.
package launch

import (
	"os"
	"path/filepath"
	"sync"

	"github.com/gpuhost/gpuhost/isolation"
)

// Config says where things are and who wardens are.
type Config struct {
	Paths isolation.Paths
	// UID and GID that wardens become once their files are open; 0 keeps root,
	// without capabilities.
	UID, GID int
	// Services is the program that serves DNS; empty is warden-services beside
	// Paths.Warden.
	Services string
	// Stderr is where a warden that dies says why; nil is nowhere. It should be
	// the journal's: an agent's own pipe ends with the agent.
	Stderr *os.File
}

// Launcher starts wardens. What runs is read from the kernel; all it keeps are the
// canaries, which end with it.
type Launcher struct {
	config Config
	// visits is held by each canary under way, of which there are not too many.
	visits chan struct{}
	mu     sync.Mutex
	kept   []*canaryProcess // canaries at rest, the one last used last
}

var _ isolation.Wardens = (*Launcher)(nil)

// New makes a launcher.
func New(config Config) *Launcher {
	if config.Services == "" {
		config.Services = filepath.Join(filepath.Dir(config.Paths.Warden), "warden-services")
	}
	return &Launcher{config: config, visits: make(chan struct{}, mostCanaries)}
}

// Cgroups of wardens, beside those of the instances, whose names are uids of
// eight characters.
const (
	cgroupTasks    = "wardens"
	cgroupServices = "services"
)

// cgroup is the folder of one of the wardens' cgroups, "" where the agent has none.
func (l *Launcher) cgroup(name string) string {
	p := l.config.Paths
	if p.CgroupMount == "" || p.CgroupRoot == "" {
		return ""
	}
	return filepath.Join(p.CgroupMount, p.CgroupRoot, name)
}
