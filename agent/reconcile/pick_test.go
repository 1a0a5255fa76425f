package reconcile

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/gpuhost/gpuhost/agent/fault"
)

func TestPickAddressGivesEveryUsableAddressOnceThenSaysSo(t *testing.T) {
	subnet := netip.MustParsePrefix("10.0.1.0/29")
	taken := map[netip.Addr]bool{}
	var got []string
	for {
		a, err := pickAddress(subnet, func(a netip.Addr) bool { return taken[a] })
		if err != nil {
			if fault.KindOf(err) != fault.Exhausted {
				t.Fatalf("kind %s, want exhausted", fault.KindOf(err))
			}
			break
		}
		if taken[a] || !usable(subnet, a) {
			t.Fatalf("gave %s: taken %v, usable %v", a, taken[a], usable(subnet, a))
		}
		taken[a] = true
		got = append(got, a.String())
	}
	want := []string{"10.0.1.2", "10.0.1.3", "10.0.1.4", "10.0.1.5", "10.0.1.6"}
	if len(got) != len(want) || got[0] != want[0] || got[4] != want[4] {
		t.Errorf("gave %v, want %v", got, want)
	}
}

func TestPickRangeNeverOverlaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := rapid.Uint32Range(65536, 1<<31).Draw(t, "start")
		n := rapid.Uint32Range(1, 20).Draw(t, "ranges")
		taken := map[string]bool{}
		for i := range n {
			r, err := pickRange(start, n*rangeSize, func(v string) bool { return taken[v] })
			if err != nil {
				t.Fatalf("range %d of %d: %v", i, n, err)
			}
			if r.Start != start+i*rangeSize {
				t.Fatalf("range %d starts at %d, want %d", i, r.Start, start+i*rangeSize)
			}
			taken[rangeValue(r)] = true
		}
		if _, err := pickRange(start, n*rangeSize, func(v string) bool { return taken[v] }); fault.KindOf(err) != fault.Exhausted {
			t.Fatalf("a full pool answered %v", err)
		}
	})
}

func TestPickTransitSkipsTaken(t *testing.T) {
	pool := netip.MustParsePrefix("100.127.0.0/29")
	link, err := pickTransit(pool, func(v string) bool { return v == "100.127.0.0/31" })
	if err != nil || link.String() != "100.127.0.2/31" {
		t.Errorf("got %v, %v; want 100.127.0.2/31", link, err)
	}
}
