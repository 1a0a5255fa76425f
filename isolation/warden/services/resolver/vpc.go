package resolver

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation/warden/services"
)

// vpc answers for one VPC. Only the server's lock holder changes its sockets and
// its table; queries read the table without a lock.
type vpc struct {
	uid    spec.UID
	shared *shared
	table  atomic.Pointer[table]

	sockets *services.Sockets
	serving *serving // nil while handed over

	rate     bucket
	upstream int // questions; shared.slots' own
	cache    cache

	queries, forwarded, cached, limited, failed atomic.Uint64
}

// shared is what all VPCs use together.
type shared struct {
	ctx       context.Context // ends with the process
	upstreams *upstreams
	slots     slots
	clock     func() time.Time
}

func newVPC(uid spec.UID, s *shared, zone services.Zone) *vpc {
	v := &vpc{uid: uid, shared: s}
	v.table.Store(newTable(zone))
	return v
}

// answer gives the answer to a query, or a function that fetches it and may take
// seconds. Neither is given for what is no query.
func (v *vpc) answer(query *dns.Msg) (now *dns.Msg, later func() *dns.Msg) {
	if query.Response {
		return nil, nil
	}
	v.queries.Add(1)
	if m := v.table.Load().decide(query); m != nil {
		return m, nil
	}
	if !query.RecursionDesired {
		return refuse(query, dns.RcodeRefused), nil
	}
	asked := ask(query)
	if stored, age := v.cache.get(keyOf(asked), v.shared.clock()); stored != nil {
		v.cached.Add(1)
		return shape(query, stored, age), nil
	}
	if !v.rate.take(v.shared.clock()) || !v.shared.slots.take(&v.upstream) {
		v.limited.Add(1)
		return refuse(query, dns.RcodeServerFailure), nil
	}
	return nil, func() *dns.Msg {
		defer v.shared.slots.give(&v.upstream)
		return v.forward(query, asked)
	}
}

func (v *vpc) forward(query, asked *dns.Msg) *dns.Msg {
	v.forwarded.Add(1)
	answer, err := v.shared.upstreams.exchange(v.shared.ctx, asked)
	if err != nil {
		v.failed.Add(1)
		return refuse(query, dns.RcodeServerFailure)
	}
	v.cache.put(keyOf(asked), answer, v.shared.clock())
	return shape(query, answer, 0)
}

func (v *vpc) status() services.VPC {
	t := v.table.Load()
	return services.VPC{
		UID: v.uid, Generation: t.zone.Generation, Domain: t.zone.Domain, Hosts: len(t.zone.Hosts),
		Counters: services.Counters{
			Queries: v.queries.Load(), Forwarded: v.forwarded.Load(), Cached: v.cached.Load(),
			Limited: v.limited.Load(), Failed: v.failed.Load(),
		},
	}
}
