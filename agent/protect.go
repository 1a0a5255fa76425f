package agent

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/gpuhost/gpuhost/agent/config"
)

// protection is which networks no tenant may open connections to: what the
// settings name, the links to the VPCs, and every address that the host has now.
type protection struct {
	named     []netip.Prefix
	addresses func() ([]net.Addr, error) // of the host
	list      atomic.Pointer[[]netip.Prefix]
}

func newProtection(c config.Network, addresses func() ([]net.Addr, error)) (*protection, error) {
	p := &protection{named: append(slices.Clone(c.Protected), c.TransitPool), addresses: addresses}
	_, err := p.refresh()
	return p, err
}

// networks is the list as it is now. It is not to be changed.
func (p *protection) networks() []netip.Prefix { return *p.list.Load() }

// refresh looks at the host's addresses again and says whether anything changed.
func (p *protection) refresh() (changed bool, err error) {
	addresses, err := p.addresses()
	if err != nil {
		return false, fmt.Errorf("list the host's addresses: %w", err)
	}
	list := slices.Clone(p.named)
	for _, a := range addresses {
		at, err := netip.ParsePrefix(a.String())
		if err != nil || !at.Addr().Is4() || at.Addr().IsLoopback() || covered(list, at.Addr()) {
			continue
		}
		list = append(list, netip.PrefixFrom(at.Addr(), at.Addr().BitLen()))
	}
	before := p.list.Swap(&list)
	return before != nil && !slices.Equal(*before, list), nil
}

// protect has every network look again when the host's addresses changed.
func (h *host) protect() {
	switch changed, err := h.shared.protection.refresh(); {
	case err != nil:
		h.log.Warn("tenants are kept from the addresses that the host had", "error", err)
	case changed:
		h.loop.TriggerAll()
	}
}

func covered(networks []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(a) })
}
