package resolver

import (
	"context"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation/warden/services"
)

// Options of a server.
type Options struct {
	// Upstreams are the resolvers to ask, "address:port"; none reads ResolvConf.
	Upstreams  []string
	ResolvConf string // empty is /etc/resolv.conf
	Version    string // of the program, for its status
}

// Server answers for all VPCs that it was given.
//
//	serving ──handOver──▶ handing ──Commit──▶ taken
//	   ▲                     │
//	   └───────Abort─────────┘
type Server struct {
	options Options
	shared  *shared

	mu      sync.Mutex
	vpcs    map[spec.UID]*vpc
	handing bool
	taken   chan struct{}
	answers sync.WaitGroup // of what no longer reads
}

// New makes a server. Its forwarding ends with ctx.
func New(ctx context.Context, o Options) *Server {
	if o.ResolvConf == "" {
		o.ResolvConf = "/etc/resolv.conf"
	}
	return &Server{
		options: o, vpcs: map[spec.UID]*vpc{}, taken: make(chan struct{}),
		shared: &shared{
			ctx: ctx, upstreams: &upstreams{fixed: o.Upstreams, path: o.ResolvConf},
			slots: slots{free: forwardsInAll}, clock: time.Now,
		},
	}
}

// Set serves a VPC from zone, on sockets or on those it has when sockets is nil.
// The server owns the sockets from then on, also when it fails.
func (s *Server) Set(uid spec.UID, zone services.Zone, sockets *services.Sockets) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, there := s.vpcs[uid]
	if err := s.settable(uid, zone, v, sockets); err != nil {
		sockets.Close()
		return err
	}
	if !there {
		v = newVPC(uid, s.shared, zone)
	}
	if sockets != nil {
		next, err := v.serve(sockets)
		if err != nil {
			sockets.Close()
			return fault.Wrap(fault.Invalid, "serve VPC "+string(uid), err)
		}
		s.retire(v)
		v.sockets, v.serving = sockets, next
	}
	v.table.Store(newTable(zone))
	s.vpcs[uid] = v
	return nil
}

func (s *Server) settable(uid spec.UID, zone services.Zone, have *vpc, sockets *services.Sockets) error {
	switch {
	case s.handing:
		return fault.New(fault.Temporary, "set VPC", "a successor is taking over")
	case have == nil && sockets == nil:
		return fault.New(fault.NotFound, "set VPC", "no sockets for %s yet", uid)
	case have != nil && zone.Generation < have.table.Load().zone.Generation:
		return fault.New(fault.Conflict, "set VPC", "generation %d is older than %d", zone.Generation, have.table.Load().zone.Generation)
	}
	return nil
}

// Remove ends the service of a VPC.
func (s *Server) Remove(uid spec.UID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.handing {
		return fault.New(fault.Temporary, "remove VPC", "a successor is taking over")
	}
	if v, ok := s.vpcs[uid]; ok {
		s.retire(v)
		delete(s.vpcs, uid)
	}
	return nil
}

// retire ends the reading of a VPC's present sockets and lets go of them.
func (s *Server) retire(v *vpc) {
	s.pause(v)
	v.sockets.Close()
	v.sockets = nil
}

// pause ends the reading of a VPC's sockets and keeps them.
func (s *Server) pause(v *vpc) {
	if v.serving == nil {
		return
	}
	s.answers.Add(1)
	v.serving.stop(s.answers.Done)
	v.serving = nil
}

// List says what is served, sorted by uid.
func (s *Server) List() []services.VPC {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []services.VPC
	for _, uid := range slices.Sorted(maps.Keys(s.vpcs)) {
		list = append(list, s.vpcs[uid].status())
	}
	return list
}

// Status says who serves.
func (s *Server) Status() services.Status {
	servers, _ := s.shared.upstreams.list() // none is what its status then shows
	s.mu.Lock()
	defer s.mu.Unlock()
	return services.Status{Version: s.options.Version, Pid: os.Getpid(), VPCs: len(s.vpcs), Upstreams: servers}
}

// TakeOver serves all that the process behind c serves, in its place. That
// process goes on until c says Taken.
func (s *Server) TakeOver(ctx context.Context, c *services.Client) error {
	return c.TakeOver(ctx, func(h services.Handed, sockets *services.Sockets) error {
		return s.Set(h.VPC, h.Zone, sockets)
	})
}
