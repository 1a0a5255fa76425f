package router

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/gpuhost/gpuhost/network"
	"github.com/gpuhost/gpuhost/network/link"
	"github.com/gpuhost/gpuhost/network/nft"
	"github.com/gpuhost/gpuhost/network/ruleset"
)

// hostSpace is the host's own namespace. mu guards nft; link has a lock of its
// own because every VPC's lane uses it.
type hostSpace struct {
	mu   sync.Mutex
	nft  *nft.Conn
	link *sharedLink
}

func (h *hostSpace) close() error {
	h.link.conn.Close()
	return h.nft.Close()
}

func (k *Kernel) openHost() error {
	here, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return err
	}
	conn, err := link.Open(nil)
	if err != nil {
		return errors.Join(err, here.Close())
	}
	rules, err := nft.Open(k.low, nil, k.table)
	if err != nil {
		conn.Close()
		return errors.Join(err, here.Close())
	}
	k.here = here
	k.host.nft, k.host.link = rules, &sharedLink{conn: conn}
	return nil
}

// ObserveHost implements network.Host.
func (k *Kernel) ObserveHost(context.Context) (network.HostHave, error) {
	k.host.mu.Lock()
	defer k.host.mu.Unlock()
	table, err := k.host.nft.Read(ruleset.INet)
	if err != nil {
		return network.HostHave{}, err
	}
	have := network.HostHave{Table: table, Forwarding: true}
	uplinks, err := k.uplinks()
	if err != nil {
		return have, err
	}
	for _, device := range uplinks {
		value, err := link.Get(link.Device("ipv4", device, "forwarding", ""))
		if err != nil {
			return have, err
		}
		have.Forwarding = have.Forwarding && value == "1"
	}
	return have, nil
}

// uplinks are the devices tenants' traffic leaves the host by.
func (k *Kernel) uplinks() ([]string, error) {
	if k.config.Uplink != "" {
		return []string{k.config.Uplink}, nil
	}
	devices, err := k.host.link.DefaultDevices()
	if err != nil {
		return nil, err
	}
	slices.Sort(devices)
	return slices.DeleteFunc(slices.Compact(devices), func(d string) bool { return strings.HasPrefix(d, "gt-") }), nil
}

// LoadHost implements network.Host.
func (k *Kernel) LoadHost(_ context.Context, table *ruleset.Table) error {
	k.host.mu.Lock()
	defer k.host.mu.Unlock()
	if table == nil {
		return k.host.nft.DeleteTable(ruleset.INet)
	}
	have, err := k.host.nft.Read(ruleset.INet)
	if err != nil {
		return err
	}
	changes, err := ruleset.Diff(have, table)
	if err != nil {
		return err
	}
	if !changes.Empty() {
		if err := k.host.nft.Apply(changes); err != nil {
			return err
		}
	}
	uplinks, err := k.uplinks()
	if err != nil {
		return err
	}
	for _, device := range uplinks {
		if err := link.Set(link.Device("ipv4", device, "forwarding", "1")); err != nil {
			return err
		}
	}
	return nil
}
