package reconcile

import (
	"errors"
	"testing"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network"
)

// set changes something of the pretend host.
func (b *bench) set(change func(p *pretend)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(b.pretend)
}

// An instance starts only once the host's own table keeps it from the host and its
// networks. What others cannot publish does not matter.
func TestAStartWaitsForTheHostsTable(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		settle()
		b.set(func(p *pretend) { p.noGuard = fault.New(fault.Temporary, "load the host's table", "not now") })
		b.write(instance("a", 0))
		settle()
		if got := b.get("a").Status; got.Phase == spec.PhaseRunning || len(b.started) > 0 || len(b.containers) > 0 {
			t.Errorf("without the host's table a is %s, started %v", got.Phase, b.started)
		}
		b.set(func(p *pretend) { p.noGuard, p.noPublish = nil, errors.New("the port is somebody else's") })
		settle()
		if got := b.phase("a"); got != spec.PhaseRunning {
			t.Errorf("with the host's table, and a port that cannot be published, a is %s: %+v", got, b.get("a").Status)
		}
		found := b.loop.Problems()
		if len(found) != 1 || found[0].Name != "host" {
			t.Errorf("problems %v, want the host's", found)
		}
	})
}

// The host's table is among the controls of every instance; one that somebody
// flushed is brought back and proved again.
func TestTheHostsTableIsProvedWithEachInstance(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		b.write(instance("a", 0))
		settle()
		b.set(func(p *pretend) { p.guarded = nil })
		controls, err := b.loop.Guarded(t.Context(), b.get("a").Metadata.UID)
		if n := len(controls); err != nil || n == 0 || controls[n-1].ID != "N8" || !controls[n-1].Pass {
			t.Errorf("after a flush: %+v, %v", controls, err)
		}
		b.set(func(p *pretend) { p.guarded, p.noGuard = nil, errors.New("no") })
		if controls, err = b.loop.Guarded(t.Context(), b.get("a").Metadata.UID); err == nil {
			t.Errorf("a table that cannot be brought back: %+v", controls)
		}
	})
}

// What cannot be compiled any more still has its link guarded.
func TestAVPCInTroubleStaysGuarded(t *testing.T) {
	onBench(t, func(t *testing.T, b *bench) {
		b.write(instance("a", 0))
		settle()
		vpc, err := b.store.Get(spec.Ref{Kind: spec.KindNetwork, Tenant: "acme", Name: "default"})
		if err != nil {
			t.Fatal(err)
		}
		b.mu.Lock()
		before := b.guarded
		b.mu.Unlock()
		link := b.loop.linkedVPC(vpc)
		if link == nil || len(before) != 1 || link.UID != before[0].UID || link.Transit != before[0].Transit {
			t.Errorf("the link is %+v, want that of %+v", link, before)
		}
		if got := b.loop.linkedVPC(&spec.Object{Metadata: spec.Metadata{UID: "nobody"}}); got != (*network.VPC)(nil) {
			t.Errorf("a VPC without a link has %+v", got)
		}
	})
}
