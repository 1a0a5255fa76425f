package reconcile

import (
	"encoding/binary"
	"net/netip"
	"strconv"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/isolation"
)

// rangeSize is how many host ids one tenant owns.
const rangeSize = 65536

// Choosing from a pool is pure: what is taken comes in, the first free value
// comes out. The store's claim makes the choice fast against other lanes; a
// conflict there means: look again, choose again.

// pickAddress gives the first address of subnet nobody has. The network's own
// address, the one after it (kept for a gateway) and the broadcast address are
// never given.
func pickAddress(subnet netip.Prefix, taken func(netip.Addr) bool) (netip.Addr, error) {
	last := lastAddress(subnet)
	for a := subnet.Masked().Addr().Next().Next(); a.Less(last); a = a.Next() {
		if !taken(a) {
			return a, nil
		}
	}
	return netip.Addr{}, fault.New(fault.Exhausted, "pick an address in "+subnet.String(), "all are taken").
		WithHint("gpuhost get instances -o wide; remove one or use a larger subnet")
}

// usable says whether an operator may ask for exactly this address of subnet.
func usable(subnet netip.Prefix, a netip.Addr) bool {
	first := subnet.Masked().Addr()
	return subnet.Contains(a) && a != first && a != first.Next() && a != lastAddress(subnet)
}

// lastAddress is the broadcast address of an IPv4 prefix.
func lastAddress(p netip.Prefix) netip.Addr {
	base := p.Masked().Addr().As4()
	n := binary.BigEndian.Uint32(base[:]) | uint32(1<<(32-p.Bits())-1)
	var out [4]byte
	binary.BigEndian.PutUint32(out[:], n)
	return netip.AddrFrom4(out)
}

// pickRange gives the first free tenant range of the pool [start, start+size).
func pickRange(start, size uint32, taken func(value string) bool) (isolation.IDRange, error) {
	for at := uint64(start); at+rangeSize <= uint64(start)+uint64(size); at += rangeSize {
		if !taken(strconv.FormatUint(at, 10)) {
			return isolation.IDRange{Start: uint32(at), Size: rangeSize}, nil
		}
	}
	return isolation.IDRange{}, fault.New(fault.Exhausted, "pick a uid range", "all %d of the pool are taken", size/rangeSize).
		WithHint("delete tenants that are no longer needed, or enlarge uids.pool_size in gpuhost.toml")
}

// pickTransit gives the first free /31 of the pool: the host's and the router's
// end of one VPC's link.
func pickTransit(pool netip.Prefix, taken func(value string) bool) (netip.Prefix, error) {
	last := lastAddress(pool)
	for a := pool.Masked().Addr(); a.Less(last); a = a.Next().Next() {
		link := netip.PrefixFrom(a, 31)
		if !taken(link.String()) {
			return link, nil
		}
	}
	return netip.Prefix{}, fault.New(fault.Exhausted, "pick a transit link in "+pool.String(), "all are taken").
		WithHint("enlarge network.transit_pool in gpuhost.toml")
}
