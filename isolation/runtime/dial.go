package runtime

import (
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// dialer connects to what a tenant's image reference, a registry's redirect or the
// realm of its tokens names: all chosen by others, while the agent stands where
// loopback is the host's own services and link-local the cloud's metadata. Addresses
// are judged after a name was resolved, just before the connection is made.
func dialer(local []netip.AddrPort) *net.Dialer {
	return &net.Dialer{
		Timeout: 30 * time.Second, KeepAlive: 30 * time.Second,
		Control: func(_, address string, _ syscall.RawConn) error {
			to, err := netip.ParseAddrPort(address)
			if err != nil {
				return fault.Wrap(fault.Internal, "connect to "+address, err)
			}
			return mayConnect(to, local)
		},
	}
}

// mayConnect refuses addresses that mean something else to the host than to
// everybody, but for the registries the operator named.
func mayConnect(to netip.AddrPort, local []netip.AddrPort) error {
	a := to.Addr().Unmap()
	to = netip.AddrPortFrom(a, to.Port())
	if a.IsGlobalUnicast() || slices.Contains(local, to) {
		return nil
	}
	return fault.New(fault.Forbidden, "connect to "+to.String(), "it is an address of the host itself or its link").
		WithHint("the operator may list it in the setting images.local_registries")
}
