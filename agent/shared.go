package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/reconcile"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation/runtime"
	"github.com/gpuhost/gpuhost/isolation/warden/launch"
	"github.com/gpuhost/gpuhost/isolation/warden/services"
	"github.com/gpuhost/gpuhost/network"
)

// shared keeps what all instances have in common. It implements reconcile.Shared.
type shared struct {
	network    *network.Room
	runtime    *runtime.Client
	trees      *trees
	logs       string // folder of all instances' logs
	launcher   *launch.Launcher
	socket     string // of the services process
	uplink     string
	protection *protection
	upstream   []netip.Addr
	now        func() time.Time
	log        *slog.Logger

	// lists name the instances that have a cgroup, device nodes, a pin.
	lists []func(context.Context) ([]spec.UID, error)
	// taken are published ports on which the host itself listens, as of the last time
	// that ports were published. Who calls Guard, Publish or Prove holds one lane.
	taken []spec.Publish
	// resolving is set once any VPC asked for names; without one no resolver runs.
	resolving bool
}

// Guard implements reconcile.Shared. To take the table away is Publish's, which
// first has no device forward any more.
func (s *shared) Guard(ctx context.Context, vpcs []network.VPC) error {
	return s.syncHost(ctx, vpcs, func(step plan.Step) bool { return len(vpcs) > 0 && step.Verb == network.VerbLoadHost })
}

// Publish implements reconcile.Shared. A port on which the host itself began to
// listen is the host's; that a tenant does not have it is told.
func (s *shared) Publish(ctx context.Context, vpcs []network.VPC) error {
	var taken error
	if s.taken = nil; len(vpcs) > 0 {
		found, err := listening("/proc")
		if err != nil {
			return err
		}
		s.taken, taken = takenOf(vpcs, found)
	}
	return errors.Join(s.syncHost(ctx, vpcs, func(plan.Step) bool { return true }), taken)
}

// takenOf are the published ports among those on which the host listens, and whose
// they would be.
func takenOf(vpcs []network.VPC, listening map[spec.Publish]bool) (taken []spec.Publish, told error) {
	var errs []error
	for _, v := range vpcs {
		for _, e := range v.Endpoints {
			for _, p := range e.Publish {
				port := spec.Publish{HostPort: p.HostPort, Protocol: p.Protocol}
				if !listening[port] {
					continue
				}
				taken = append(taken, port)
				errs = append(errs, fault.New(fault.Conflict, fmt.Sprintf("publish %s/%s on the host's port %d/%s", v.Tenant, e.Name, p.HostPort, p.Protocol),
					"something on the host listens there, and keeps it").WithHint("ss -lntup; end it, or publish on another port"))
			}
		}
	}
	return taken, errors.Join(errs...)
}

// Prove implements reconcile.Shared. Without a VPC nothing has to be kept apart.
func (s *shared) Prove(ctx context.Context, vpcs []network.VPC) (spec.Control, error) {
	want := s.wantHost(vpcs)
	if want == nil {
		return spec.Control{}, fault.New(fault.Internal, "prove the host's table", "no network is wanted on this host")
	}
	return s.network.ProveHost(ctx, *want)
}

// syncHost makes those steps that bring the host's own table and devices to the
// VPCs that are in force.
func (s *shared) syncHost(ctx context.Context, vpcs []network.VPC, which func(plan.Step) bool) error {
	have, err := s.network.ObserveHost(ctx)
	if err != nil {
		return err
	}
	p, err := s.network.PlanHost(s.wantHost(vpcs), have)
	if err != nil {
		return err
	}
	ordered, err := p.Ordered()
	if err != nil {
		return err
	}
	for _, step := range ordered.Steps {
		if !which(step) {
			continue
		}
		if err := s.apply(ctx, step); err != nil {
			return err
		}
	}
	return nil
}

// wantHost is what the host should do for these VPCs: nothing without any.
func (s *shared) wantHost(vpcs []network.VPC) *network.HostWant {
	if len(vpcs) == 0 {
		return nil
	}
	want := &network.HostWant{Protected: s.protection.networks(), Uplink: s.uplink, Taken: s.taken}
	for _, v := range vpcs {
		entry := network.HostVPC{UID: v.UID, Transit: v.Transit}
		for _, e := range v.Endpoints {
			entry.Publish = append(entry.Publish, e.Publish...)
		}
		want.VPCs = append(want.VPCs, entry)
	}
	return want
}

func (s *shared) apply(ctx context.Context, step plan.Step) error {
	if err := s.network.Apply(ctx, step, func(plan.Progress) {}); err != nil {
		return err
	}
	s.log.Info("step applied", "room", string(step.Room), "verb", step.Verb, "title", step.Title, "why", step.Why)
	return nil
}

// Name implements reconcile.Shared.
func (s *shared) Name(ctx context.Context, vpcs []network.VPC) error {
	s.resolving = s.resolving || len(vpcs) > 0
	if !s.resolving {
		return nil
	}
	client, err := s.resolver(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	served, err := client.List(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, v := range vpcs {
		errs = append(errs, s.setNames(ctx, client, v, serving(served, v.UID)))
	}
	for _, old := range served {
		if !slices.ContainsFunc(vpcs, func(v network.VPC) bool { return v.UID == old.UID }) {
			errs = append(errs, client.RemoveVPC(ctx, old.UID))
		}
	}
	return errors.Join(errs...)
}

func serving(served []services.VPC, uid spec.UID) bool {
	return slices.ContainsFunc(served, func(v services.VPC) bool { return v.UID == uid })
}

// setNames pushes one VPC's zone, with sockets where the resolver has none. The
// clock orders pushes over all agents there ever are.
func (s *shared) setNames(ctx context.Context, client *services.Client, v network.VPC, known bool) error {
	zone := services.Zone{Generation: uint64(s.now().UnixNano()), Domain: v.Name + ".internal"}
	for _, e := range v.Endpoints {
		zone.Hosts = append(zone.Hosts, services.Host{Name: e.Name, Addresses: []netip.Addr{e.Address}})
	}
	if known {
		return client.SetVPC(ctx, v.UID, nil, nil, zone)
	}
	udp, tcp, err := s.network.ServiceSockets(ctx, v.UID)
	if err != nil {
		return err
	}
	defer udp.Close()
	defer tcp.Close()
	return client.SetVPC(ctx, v.UID, udp, tcp, zone)
}

// resolver connects to the services process, starting it where none runs and
// putting the installed program in the place of an older one.
func (s *shared) resolver(ctx context.Context) (*services.Client, error) {
	options := launch.ServicesOptions{Socket: s.socket, Upstreams: resolvers(s.upstream)}
	client, err := services.Dial(ctx, s.socket)
	switch {
	case fault.Is(err, fault.Temporary):
		err = s.launcher.StartServices(ctx, options)
	case err != nil:
		return nil, err
	default:
		status, statusErr := client.Status(ctx)
		if statusErr != nil || sameProgram(status.Pid, s.launcher.ServicesProgram()) {
			return client, nil
		}
		s.log.Info("the resolver is replaced by the installed one", "version", status.Version)
		err = errors.Join(client.Close(), s.launcher.UpgradeServices(ctx, options))
	}
	if err != nil {
		return nil, err
	}
	return services.Dial(ctx, s.socket)
}

// resolvers writes addresses the way the services process takes them.
func resolvers(addresses []netip.Addr) []string {
	out := make([]string, len(addresses))
	for i, a := range addresses {
		out[i] = netip.AddrPortFrom(a, 53).String()
	}
	return out
}

// listPatience bounds how long containerd, which may be starting, is waited for.
const listPatience = 2 * time.Second

// Marked implements reconcile.Shared: everything on the host that carries this
// agent's mark, by what finds it.
func (s *shared) Marked(ctx context.Context) (reconcile.Marked, error) {
	vpcs, err := s.network.List(ctx)
	if err != nil {
		return reconcile.Marked{}, err
	}
	found := reconcile.Marked{VPCs: vpcs, Instances: make(map[spec.UID]string)}
	for _, list := range s.lists {
		uids, err := list(ctx)
		if err != nil {
			return reconcile.Marked{}, err
		}
		for _, uid := range uids {
			found.Instances[uid] = ""
		}
	}
	ctx, cancel := context.WithTimeout(ctx, listPatience)
	defer cancel()
	containers, err := s.runtime.Leftovers(ctx)
	for _, c := range containers {
		found.Instances[c.UID] = c.Tenant
	}
	return found, err
}

// keptLogs is how long the log of a deleted instance stays.
const keptLogs = 24 * time.Hour

// DropLogs implements reconcile.Shared: the logs of instances that are not stored
// go once they have been silent for a day.
func (s *shared) DropLogs(_ context.Context, stored func(spec.UID) bool) error {
	entries, err := os.ReadDir(s.logs)
	if err != nil {
		return fmt.Errorf("list logs: %w", err)
	}
	var errs []error
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || stored(spec.UID(e.Name())) || s.now().Sub(info.ModTime()) < keptLogs {
			continue // gone meanwhile, in use, or young
		}
		errs = append(errs, os.RemoveAll(filepath.Join(s.logs, e.Name())))
	}
	return errors.Join(errs...)
}

// RemoveTenant implements reconcile.Shared.
func (s *shared) RemoveTenant(ctx context.Context, tenant string) error {
	return errors.Join(s.runtime.RemoveTenant(ctx, tenant), s.trees.store.Remove(tenant))
}
