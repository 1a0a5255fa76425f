// Package router keeps the router namespaces of VPCs, and the host's own table
// beside them, on the real kernel. It implements package network's ports by
// putting together network/netns, network/link, network/nft and network/flow.
//
//	kernel, err := router.New(router.Config{HostID: id, NetnsDir: dir, Opened: file})
//	room, err := network.New(network.Deps{HostID: id, Log: log, Kernel: kernel})
//
// It decides nothing: what is wanted comes compiled.
package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network"
	"github.com/gpuhost/gpuhost/network/flow"
	"github.com/gpuhost/gpuhost/network/link"
	"github.com/gpuhost/gpuhost/network/netns"
	"github.com/gpuhost/gpuhost/network/nft"
	"github.com/gpuhost/gpuhost/network/ruleset"
)

// Config says where and under which names.
type Config struct {
	HostID   string // part of the tables' name
	NetnsDir string // pins are <NetnsDir>/vpc-<uid>
	// Opened is the file that names the devices which forward for tenants alone. It
	// lies on memory: the note and the kernel's switches end together.
	Opened string
	MTU    int // of tenants' links; 0 is that of the host's uplink, less room for an overlay
	// LinkFirst makes each guard only once its link is there, as kernels before
	// 6.16 ask for, on every kernel. It is how that order is tested on others.
	LinkFirst bool
	Log       *slog.Logger
}

const (
	pinPrefix      = "vpc-"
	usualMTU       = 1500 // of a host without a default route
	largestMTU     = 9000 // of Ethernet; a larger one is no network's
	leastMTU       = 576
	overlayBytes   = 100 // more than VXLAN adds
	lowDescriptors = 256
	loopback       = "lo" // carries the service address
)

// Kernel implements network.Ports.
type Kernel struct {
	config Config
	table  string
	// linkFirst says that a guard cannot be made before its link.
	linkFirst bool
	sockets   bool // rules can ask for sockets
	low       *nft.Descriptors
	here      *os.File // the host's own namespace
	host      hostSpace
	mounts    *netns.Mounts

	mu     sync.Mutex
	spaces map[spec.UID]*space
}

// New opens what the host's own namespace needs. It changes nothing.
func New(c Config) (*Kernel, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	low, err := nft.Reserve(lowDescriptors)
	if err != nil {
		return nil, err
	}
	k := &Kernel{config: c, table: network.TableName(c.HostID), low: low, spaces: map[spec.UID]*space{}}
	if err := k.chooseOrder(); err != nil {
		return nil, errors.Join(err, low.Close())
	}
	if k.sockets, err = k.asksSockets(); err != nil {
		return nil, errors.Join(err, low.Close())
	}
	if k.mounts, err = netns.WatchMounts(); err != nil {
		return nil, errors.Join(err, low.Close())
	}
	if err := k.openHost(); err != nil {
		return nil, errors.Join(err, k.mounts.Close(), low.Close())
	}
	return k, nil
}

// Close closes sockets. All rules, links and namespaces stay in force.
func (k *Kernel) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all error
	for _, s := range k.spaces {
		all = errors.Join(all, s.close())
	}
	k.spaces = map[spec.UID]*space{}
	return errors.Join(all, k.host.close(), k.here.Close(), k.mounts.Close(), k.low.Close())
}

// List implements network.Routers.
func (k *Kernel) List(context.Context) ([]spec.UID, error) {
	names, err := netns.List(k.config.NetnsDir, pinPrefix)
	if err != nil {
		return nil, err
	}
	uids := make([]spec.UID, len(names))
	for i, name := range names {
		uids[i] = spec.UID(name)
	}
	return uids, nil
}

func (k *Kernel) pin(vpc spec.UID) string {
	return filepath.Join(k.config.NetnsDir, pinPrefix+string(vpc))
}

// space is one router namespace with lasting sockets into it. mu is held while
// it is used: one batch at a time, and what is remembered stays true.
type space struct {
	mu       sync.Mutex
	gone     bool     // no longer the VPC's: whoever waited for it takes another
	netns    *os.File // nil: not open
	nft      *nft.Conn
	link     *link.Conn
	mirror   *link.Mirror
	flow     *flow.Conn
	known    memory
	evidence evidence
	owed     owed
	looked   looked
	seen     map[string]sight
}

// sight is where a link was found to lead to. It holds as long as the link is the
// same one and the pin's inode is: an inode is not used again while its namespace
// lives, and a link does not outlive the namespace it leads to.
type sight struct {
	index, peer int
	inode       uint64
}

// memory is the tables as this process left them at a generation of the kernel.
type memory struct {
	valid         bool
	generation    uint32
	links         uint64 // with the link first: the mirror's version when the guard was read
	guard, router *ruleset.State
}

// space gives the VPC's space, locked. The caller unlocks it.
func (k *Kernel) space(vpc spec.UID) *space {
	for {
		k.mu.Lock()
		s := k.spaces[vpc]
		if s == nil {
			s = &space{}
			k.spaces[vpc] = s
		}
		k.mu.Unlock()
		s.mu.Lock()
		if !s.gone {
			return s
		}
		s.mu.Unlock() // it was forgotten while this waited: there is another, or will be
	}
}

// forget drops a VPC's space, which is closed and which the caller holds.
func (k *Kernel) forget(vpc spec.UID, s *space) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s.gone = true
	delete(k.spaces, vpc)
}

// open opens the sockets where the namespace is pinned, and says whether it is.
func (k *Kernel) open(s *space, vpc spec.UID) (bool, error) {
	pinned, err := netns.IsPinned(k.pin(vpc))
	if err != nil {
		return false, err
	}
	if !pinned {
		return false, s.close()
	}
	if s.netns != nil {
		return true, nil
	}
	if s.netns, err = netns.Open(k.pin(vpc)); err != nil {
		return false, err
	}
	if s.link, err = link.Open(s.netns); err != nil {
		return false, errors.Join(err, s.close())
	}
	if s.mirror, err = link.NewMirror(s.link, s.netns); err != nil {
		return false, errors.Join(err, s.close())
	}
	if s.nft, err = nft.Open(k.low, s.netns, k.table); err != nil {
		return false, errors.Join(err, s.close())
	}
	if s.flow, err = flow.Open(s.netns); err != nil {
		return false, errors.Join(err, s.close())
	}
	return true, nil
}

func (s *space) close() error {
	var all error
	if s.nft != nil {
		all = errors.Join(all, s.nft.Close())
	}
	if s.flow != nil {
		all = errors.Join(all, s.flow.Close())
	}
	if s.mirror != nil {
		s.mirror.Close()
	}
	if s.link != nil {
		s.link.Close()
	}
	if s.netns != nil {
		all = errors.Join(all, s.netns.Close())
	}
	s.nft, s.flow, s.mirror, s.link, s.netns = nil, nil, nil, nil, nil
	s.known, s.evidence, s.owed, s.looked, s.seen = memory{}, evidence{}, owed{}, looked{}, nil
	return all
}

// recall brings what is remembered of the tables up to date: nothing to do while
// the kernel's generation stands where this process left it.
func (s *space) recall() error {
	generation, err := s.nft.Generation()
	if err != nil {
		return err
	}
	if s.known.valid && s.known.generation == generation {
		return nil
	}
	s.known = memory{generation: generation}
	if s.known.guard, err = s.nft.Read(ruleset.Netdev); err != nil {
		return err
	}
	if s.known.router, err = s.nft.Read(ruleset.INet); err != nil {
		return err
	}
	s.known.valid, s.evidence = true, evidenceOf(generation, s.known.router)
	return nil
}

// Observe implements network.Routers.
func (k *Kernel) Observe(_ context.Context, vpc spec.UID) (network.Have, error) {
	s := k.space(vpc)
	defer s.mu.Unlock()
	return k.observe(s, vpc)
}

// Marks implements network.Inside.
func (k *Kernel) Marks(_ context.Context, vpc spec.UID) (network.Marks, error) {
	s := k.space(vpc)
	defer s.mu.Unlock()
	there, err := k.open(s, vpc)
	if err != nil || !there {
		return network.MarksOf(nil), err
	}
	if err := s.recall(); err != nil {
		return network.Marks{}, err
	}
	return network.MarksOf(s.known.router), nil
}

// Inspect implements network.Inside.
func (k *Kernel) Inspect(_ context.Context, vpc, instance spec.UID, what network.Bearing) (network.Have, error) {
	s := k.space(vpc)
	defer s.mu.Unlock()
	have := network.Have{}
	there, err := k.open(s, vpc)
	if err != nil || !there {
		return have, err
	}
	have.Namespace = true
	if have.Guard, err = s.nft.ReadChains(ruleset.Netdev, network.GuardName(instance)); err != nil {
		return have, err
	}
	if have.Router, err = s.evident(what); err != nil {
		return have, err
	}
	l, err := s.link.Get(network.LinkName(instance))
	if err != nil || l == nil {
		return have, err
	}
	state, err := observeLink(s, *l)
	have.Links = map[spec.UID]network.LinkState{instance: state}
	return have, err
}

func (k *Kernel) observe(s *space, vpc spec.UID) (network.Have, error) {
	have := network.Have{}
	there, err := k.open(s, vpc)
	if err != nil {
		return have, err
	}
	if have.Transit, err = k.transit(s, vpc); err != nil {
		return have, err
	}
	if !there {
		return have, nil
	}
	if err := k.recall(s); err != nil {
		return have, fmt.Errorf("observe network %s: %w", vpc, err)
	}
	have.Namespace, have.LinkFirst = true, k.linkFirst
	have.Guard, have.Router = s.known.guard, s.known.router
	if have.Owed, err = s.owed.look(s.flow, have.Router, s.known.generation); err != nil {
		return have, fmt.Errorf("observe network %s: %w", vpc, err)
	}
	if have.Links, err = k.observeLinks(s); err != nil {
		return have, fmt.Errorf("observe network %s: %w", vpc, err)
	}
	addresses, err := s.mirror.Addresses(loopback)
	have.Ready = slices.Contains(addresses, serviceNetwork())
	return have, err
}

// ours is a link's alias: whose it is.
func (k *Kernel) ours(vpc spec.UID) string { return k.table + " " + string(vpc) }

func serviceNetwork() netip.Prefix { return netip.PrefixFrom(network.ServiceAddress(), 32) }
