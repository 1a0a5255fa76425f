package network

import "slices"

// A published port answers on every address of the host, so every device with an
// address has to forward. Which of them do so for tenants alone is remembered
// outside the kernel's tables, which anybody may flush:
//
//	remember ──▶ table drops what is not tenants' ──▶ switch on
//	switch off ──▶ table goes, forget
//
// A process that ends anywhere in between leaves no device that forwards for its
// neighbours.

// ForwardArgs are the devices that forward switches, on and off.
type ForwardArgs struct {
	Open  []string `json:"open,omitempty"`
	Close []string `json:"close,omitempty"`
}

// shut are the devices that do not forward and should. Where the operator made the
// host a router, he decided about each device.
func (h HostHave) shut() []string {
	if h.Router {
		return nil
	}
	var names []string
	for device, forwards := range h.Forwarding {
		if !forwards {
			names = append(names, device)
		}
	}
	slices.Sort(names)
	return names
}

// ours are the devices that forward, or are about to, for tenants alone. One that
// is not there at this look, or has no address, stays: it may come back. None is
// ours any more once the operator made the host a router.
func (h HostHave) ours() []string {
	if h.Router {
		return nil
	}
	names := append(slices.Clone(h.Opened), h.shut()...)
	slices.Sort(names)
	return slices.Compact(names)
}

// closing are the devices to switch back.
func (h HostHave) closing() []string {
	if h.Router {
		return nil
	}
	return h.Opened
}
