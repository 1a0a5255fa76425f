package audit

import (
	"context"
	"sync"
	"time"

	"github.com/gpuhost/gpuhost/agent/spec"
)

// Each instance is compared with every other one: to read them all for each would
// cost the square of their number. So what was read of an instance is used again
// for some time by whoever audits another. It only ever clears: what looks shared
// with a remembered one is read again before it is judged, because the kernel
// gives the number of a namespace that has ended to the next.

// peersAge is how long a peer's namespaces are remembered. A task keeps those it
// began with, and one that has others began with an audit of its own.
const peersAge = time.Minute

// peers remembers one process's namespaces of each instance.
type peers struct {
	mu    sync.Mutex
	known map[spec.UID]peer
}

// peer is an instance as it was seen. One without a process has no namespaces and
// is not remembered.
type peer struct {
	at         time.Time
	namespaces Namespaces
}

// forget has everything read again.
func (p *peers) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known = nil
}

// get gives the namespaces of the instances but self, reading those that are not
// remembered. Instances that are not listed are forgotten.
func (p *peers) get(listed []spec.UID, self spec.UID, now time.Time, read func(spec.UID) (Namespaces, error)) (map[spec.UID]Namespaces, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known, others := make(map[spec.UID]peer, len(listed)), make(map[spec.UID]Namespaces, len(listed))
	for _, uid := range listed {
		one, remembered := p.known[uid]
		if !remembered || now.Sub(one.at) > peersAge {
			namespaces, err := read(uid)
			if err != nil {
				return nil, err
			}
			one = peer{at: now, namespaces: namespaces}
		}
		if one.namespaces == nil {
			continue
		}
		known[uid] = one
		if uid != self {
			others[uid] = one.namespaces
		}
	}
	p.known = known
	return others, nil
}

// readPeers gives the namespaces of one process of every other instance.
func (a *Auditor) readPeers(ctx context.Context, self spec.UID) (map[spec.UID]Namespaces, error) {
	uids, err := a.config.Cgroups.List(ctx)
	if err != nil {
		return nil, err
	}
	return a.peers.get(uids, self, time.Now(), func(uid spec.UID) (Namespaces, error) { return a.readPeer(ctx, uid) })
}

// clear reads the peers again where an instance seems to share a namespace with one
// that was remembered.
func (a *Auditor) clear(ctx context.Context, want Want, facts *Facts) {
	if judgeNamespaces(want, *facts).pass {
		return
	}
	a.peers.forget()
	facts.Peers = fact(a.readPeers(ctx, want.Lease.UID))
}
