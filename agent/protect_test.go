package agent

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/gpuhost/gpuhost/agent/config"
)

func TestProtectionFollowsTheHostsAddresses(t *testing.T) {
	has := []string{"127.0.0.1/8", "10.9.0.7/24", "100.127.0.2/31", "fe80::1/64"}
	p, err := newProtection(config.Network{
		Protected: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, TransitPool: netip.MustParsePrefix("100.127.0.0/16"),
	}, func() ([]net.Addr, error) {
		var all []net.Addr
		for _, text := range has {
			address, network, err := net.ParseCIDR(text)
			if err != nil {
				return nil, err
			}
			all = append(all, &net.IPNet{IP: address, Mask: network.Mask})
		}
		return all, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	check := func(changes bool, want string) {
		t.Helper()
		changed, err := p.refresh()
		if got := fmt.Sprint(p.networks()); got != want || changed != changes || err != nil {
			t.Errorf("protected %s, changed %v, %v; want %s, %v", got, changed, err, want, changes)
		}
	}
	check(false, "[192.0.2.0/24 100.127.0.0/16 10.9.0.7/32]")
	has = append(has, "192.0.2.5/24", "100.127.0.4/31") // another VPC's link, and one that is protected already
	check(false, "[192.0.2.0/24 100.127.0.0/16 10.9.0.7/32]")
	has[1] = "203.0.113.9/29"
	check(true, "[192.0.2.0/24 100.127.0.0/16 203.0.113.9/32]")
}
