package router

import (
	"context"
	"errors"
	"os"
	"sync"

	"github.com/gpuhost/gpuhost/network"
	"github.com/gpuhost/gpuhost/network/flow"
	"github.com/gpuhost/gpuhost/network/link"
	"github.com/gpuhost/gpuhost/network/nft"
	"github.com/gpuhost/gpuhost/network/ruleset"
)

// hostSpace is the host's own namespace. mu guards nft; link has a lock of its
// own because every VPC's lane uses it.
type hostSpace struct {
	mu    sync.Mutex
	known hostMemory
	owed  owed
	nft   *nft.Conn
	flow  *flow.Conn
	link  *sharedLink
}

// hostMemory is the host's own table as it was read at a generation of the host's
// rules, which everybody's changes count up.
type hostMemory struct {
	valid      bool
	generation uint32
	table      *ruleset.State
}

// read gives the host's own table as it is in the kernel.
func (h *hostSpace) read() (*ruleset.State, error) {
	generation, err := h.nft.Generation()
	if err != nil {
		return nil, err
	}
	if h.known.valid && h.known.generation == generation {
		return h.known.table, nil
	}
	h.known = hostMemory{}
	table, err := h.nft.Read(ruleset.INet)
	if err == nil {
		h.known = hostMemory{true, generation, table}
	}
	return table, err
}

func (h *hostSpace) close() error {
	h.link.close()
	return errors.Join(h.flow.Close(), h.nft.Close())
}

func (k *Kernel) openHost() error {
	here, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return err
	}
	shared, err := openShared()
	if err != nil {
		return errors.Join(err, here.Close())
	}
	rules, err := nft.Open(k.low, nil, k.table)
	if err != nil {
		shared.close()
		return errors.Join(err, here.Close())
	}
	flows, err := flow.Open(here)
	if err != nil {
		shared.close()
		return errors.Join(err, rules.Close(), here.Close())
	}
	if k.config.MTU == 0 {
		uplinks, err := shared.Uplinks()
		if err != nil {
			shared.close()
			return errors.Join(err, flows.Close(), rules.Close(), here.Close())
		}
		k.config.MTU = mtuBelow(uplinks)
	}
	k.here = here
	k.host.nft, k.host.flow, k.host.link = rules, flows, shared
	return nil
}

// mtuBelow is the MTU of tenants' links: what an overlay leaves of the host's
// smallest uplink, and never less than IPv4 must carry.
func mtuBelow(uplinks []link.Uplink) int {
	smallest := usualMTU
	if len(uplinks) > 0 {
		smallest = largestMTU
	}
	for _, up := range uplinks {
		smallest = min(smallest, up.MTU)
	}
	return max(smallest-overlayBytes, leastMTU)
}

// ObserveHost implements network.Host.
func (k *Kernel) ObserveHost(context.Context) (network.HostHave, error) {
	k.host.mu.Lock()
	defer k.host.mu.Unlock()
	table, err := k.host.read()
	if err != nil {
		return network.HostHave{}, err
	}
	have := network.HostHave{Table: table, Sockets: k.sockets, Forwarding: map[string]bool{}}
	if have.Owed, err = k.host.owed.look(k.host.flow, table, k.host.known.generation); err != nil {
		return have, err
	}
	uplinks, err := k.host.link.Uplinks()
	if err != nil {
		return have, err
	}
	for _, up := range uplinks {
		have.Uplinks = append(have.Uplinks, up.Name)
	}
	if have.Opened, err = k.opened(); err != nil {
		return have, err
	}
	if have.Router, err = forwards("all"); err != nil {
		return have, err
	}
	devices, err := k.host.link.Addressed()
	if err != nil {
		return have, err
	}
	for _, device := range devices {
		if network.IsTransit(device) {
			continue
		}
		if have.Forwarding[device], err = forwards(device); err != nil {
			return have, err
		}
	}
	return have, nil
}

// LoadHost implements network.Host.
func (k *Kernel) LoadHost(_ context.Context, load network.HostArgs) error {
	k.host.mu.Lock()
	defer k.host.mu.Unlock()
	if err := k.noteOpened(load.Opened); err != nil {
		return err
	}
	have, err := k.host.read()
	if err != nil {
		return err
	}
	gone := append(network.Unpublished(have, load.Table), load.Owed...)
	before := k.host.known.generation
	k.host.owed.unknown(gone)
	if err := k.host.load(have, load.Table); err != nil {
		return err
	}
	if err := forgetPorts(k.host.flow, gone); err != nil {
		return err
	}
	now, err := k.host.nft.Generation()
	k.host.owed.paid(before, now)
	return err
}

func (h *hostSpace) load(have *ruleset.State, want *ruleset.Table) error {
	if want == nil {
		return h.nft.DeleteTable(ruleset.INet)
	}
	changes := ruleset.Diff(have, want)
	if changes.Empty() {
		return nil
	}
	return h.nft.Apply(changes)
}

// ForeignDrops lists the chains of others in the host's namespace that drop by
// policy on the tenants' way, as `nft list chain` names them.
func (k *Kernel) ForeignDrops(context.Context) ([]string, error) {
	k.host.mu.Lock()
	defer k.host.mu.Unlock()
	found, err := k.host.nft.ForeignDrops()
	names := make([]string, len(found))
	for i, f := range found {
		names[i] = f.String()
	}
	return names, err
}

// WatchAddresses calls changed once it listens, and after each change of one of the
// host's addresses, until ctx ends.
func (k *Kernel) WatchAddresses(ctx context.Context, changed func()) error {
	return link.WatchAddresses(ctx, changed)
}

// WatchHost implements network.Host.
func (k *Kernel) WatchHost(ctx context.Context, changed func()) error {
	return nft.Watch(ctx, k.here, changed)
}
