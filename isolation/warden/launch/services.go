package launch

import (
	"context"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/isolation/warden/services"
)

// ServicesOptions describe the process that serves all VPCs.
type ServicesOptions struct {
	Socket    string   // its control socket
	Upstreams []string // resolvers, "address:port"; none reads the host's resolv.conf
}

// servicesProcs lets DNS use more than one processor, but not all of a large host.
const servicesProcs = 4

// ServicesProgram is the file that StartServices and UpgradeServices run.
func (l *Launcher) ServicesProgram() string { return l.config.Services }

// StartServices makes the process run and returns once it listens. One that
// listens already is left alone, whatever its version; see [Launcher.UpgradeServices].
func (l *Launcher) StartServices(ctx context.Context, o ServicesOptions) error {
	c, err := services.Dial(ctx, o.Socket)
	if err == nil {
		return c.Close()
	}
	if !fault.Is(err, fault.Temporary) {
		return err
	}
	return l.startServices(ctx, o)
}

// UpgradeServices puts this version's program in the place of the process that
// runs. The new one takes zones and sockets over; queries that arrive meanwhile
// wait in the sockets. When it fails the old one goes on.
func (l *Launcher) UpgradeServices(ctx context.Context, o ServicesOptions) error {
	return l.startServices(ctx, o, "--takeover")
}

func (l *Launcher) startServices(ctx context.Context, o ServicesOptions, more ...string) error {
	args := append([]string{"--socket", o.Socket}, l.idArgs()...)
	for _, server := range o.Upstreams {
		args = append(args, "--upstream", server)
	}
	args = append(args, more...)
	return l.start(ctx, program{
		name: "services", path: l.config.Services, args: args, cgroup: l.cgroup(cgroupServices), procs: servicesProcs,
	})
}
