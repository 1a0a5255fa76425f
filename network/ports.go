package network

import (
	"context"
	"os"

	"github.com/gpuhost/gpuhost/agent/spec"
)

// Routers is what the room needs of the operating system for VPCs.
// network/router implements it; a fake holds it in memory for the laws.
type Routers interface {
	// List names the VPCs whose router namespaces carry this host's mark.
	List(ctx context.Context) ([]spec.UID, error)
	// Observe reads a router namespace back. One that is not there is no error.
	Observe(ctx context.Context, vpc spec.UID) (Have, error)
	// Open makes the namespace, its transit link and its service address.
	Open(ctx context.Context, vpc spec.UID, transit Transit) error
	// Remove ends the namespace with everything in it.
	Remove(ctx context.Context, vpc spec.UID) error
	// Load brings rules in force, in one transaction, and forgets what load says.
	Load(ctx context.Context, vpc spec.UID, load LoadArgs) error
	// Attach hangs an instance's namespace on the router, provided its rules are in
	// force, and switches the link on, provided its guard is.
	Attach(ctx context.Context, vpc spec.UID, endpoint Endpoint) error
	// Detach takes an instance's link away and forgets its connections.
	Detach(ctx context.Context, vpc spec.UID, endpoint Endpoint) error
}

// Host is what the room needs of the host's own namespace.
type Host interface {
	// ObserveHost reads back the host's table, and which devices forward.
	ObserveHost(ctx context.Context) (HostHave, error)
	// LoadHost notes the devices opened, then brings the host's rules in force; a
	// nil table removes them.
	LoadHost(ctx context.Context, load HostArgs) error
	// Forward switches the forwarding of devices. One that is gone is no error.
	Forward(ctx context.Context, forward ForwardArgs) error
	// WatchHost calls changed after every change of the host's nftables, until ctx ends.
	WatchHost(ctx context.Context, changed func()) error
}

// Inside is what the room reads and opens inside a router namespace.
type Inside interface {
	// Marks reads which epochs are in force.
	Marks(ctx context.Context, vpc spec.UID) (Marks, error)
	// Inspect reads from the kernel what decides about one instance: its guard, the
	// chains and sets named, and its entries in the maps that find them. Have's
	// tables hold only that. A set that is exactly the one named is that very one.
	// What was read once is given again as long as nobody wrote since.
	Inspect(ctx context.Context, vpc, instance spec.UID, what Bearing) (Have, error)
	// Counters reads the named counters of a VPC.
	Counters(ctx context.Context, vpc spec.UID) (map[string]Count, error)
	// ServiceSockets listens on the service address, port 53.
	ServiceSockets(ctx context.Context, vpc spec.UID) (udp, tcp *os.File, err error)
}

// Ports is all the room needs of the operating system.
type Ports interface {
	Routers
	Host
	Inside
}
