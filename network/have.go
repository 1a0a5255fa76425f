package network

import (
	"net/netip"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network/ruleset"
)

// Have is a router namespace as it stands.
type Have struct {
	Namespace bool // it is pinned
	Ready     bool // it has the service address, the last thing that open does inside
	// Transit is what the transit link's ends have; zero when it is missing, down
	// or cut.
	Transit Transit
	// LinkFirst says that the kernel binds a guard only to a link that is there.
	LinkFirst bool
	Guard     *ruleset.State // nil: the table is absent
	Router    *ruleset.State // nil: the table is absent
	Links     map[spec.UID]LinkState
	// Owed are connections that no published port lets in; see [Owed].
	Owed []Published
}

// LinkState is the router's end of an instance's link.
type LinkState struct {
	Up bool `json:"up"`
	// Current says that the other end lies in the namespace that is pinned now at
	// the path it was made for.
	Current bool `json:"current"`
	// Address is the instance's, for which the link was made.
	Address netip.Addr `json:"address"`
}

// Linked says whether an instance has a link.
func (h Have) Linked(instance spec.UID) bool {
	_, there := h.Links[instance]
	return there
}

// Present says whether anything of the VPC is on the host.
func (h Have) Present() bool { return h.Namespace || h.Transit != (Transit{}) }

// HostHave is the host's own namespace as it stands.
type HostHave struct {
	Table *ruleset.State // nil: absent
	// Owed are connections to routers that no published port lets in; see [Owed].
	Owed []Published
	// Forwarding are the host's own devices that have an address, and whether
	// each forwards.
	Forwarding map[string]bool
	// Uplinks are the devices of the host's default routes, sorted.
	Uplinks []string
	// Sockets says that the kernel's rules can ask for sockets.
	Sockets bool
	// Router says that the operator made the host a router: the switch of all
	// devices is on.
	Router bool
	// Opened are the devices that were noted as forwarding for tenants alone,
	// sorted. The note lives as long as the kernel's switches do.
	Opened []string
}
