package flow_test

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/network/flow"
	"github.com/gpuhost/gpuhost/network/netns"
	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

func TestMain(m *testing.M) { hosttest.Main(m) }

// tracked is a namespace where connections are tracked, and marked with the last
// byte of their destination.
func tracked(t *testing.T) *os.File {
	t.Helper()
	hosttest.Need(t, "nft", "ip")
	path := filepath.Join(t.TempDir(), "ns")
	must(t, netns.Create(path))
	f, err := netns.Open(path)
	must(t, err)
	t.Cleanup(func() {
		f.Close()
		must(t, netns.Delete(path))
	})
	must(t, netns.Do(f, func() error {
		if err := exec.Command("ip", "link", "set", "lo", "up").Run(); err != nil {
			return err
		}
		return exec.Command("nft", "add table ip t; add chain ip t o { type filter hook output priority 0; }; "+
			"add rule ip t o ct state new ct mark set ip daddr map { 127.0.0.1 : 1, 127.0.0.2 : 2, 127.0.0.3 : 3 }").Run()
	}))
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func send(t *testing.T, f *os.File, from, to string) {
	t.Helper()
	must(t, netns.Do(f, func() error {
		c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(from)}, &net.UDPAddr{IP: net.ParseIP(to), Port: 9})
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("x"))
		return err
	}))
}

// pairs lists the connections tracked as "from>to", the ICMP answers aside.
func pairs(t *testing.T, f *os.File) []string {
	t.Helper()
	c, err := conntrack.Dial(&netlink.Config{NetNS: int(f.Fd())})
	must(t, err)
	defer c.Close()
	flows, err := c.Dump(nil)
	must(t, err)
	var all []string
	for _, f := range flows {
		all = append(all, f.TupleOrig.IP.SourceAddress.String()+">"+f.TupleOrig.IP.DestinationAddress.String())
	}
	slices.Sort(all)
	return all
}

func TestForget(t *testing.T) {
	f := tracked(t)
	c, err := flow.Open(f)
	must(t, err)
	defer c.Close()
	all := [][2]string{{"127.0.0.1", "127.0.0.2"}, {"127.0.0.2", "127.0.0.3"}, {"127.0.0.3", "127.0.0.1"}}
	for _, p := range all {
		send(t, f, p[0], p[1])
	}
	check := func(what string, want ...string) {
		t.Helper()
		if got := pairs(t, f); !slices.Equal(got, want) {
			t.Errorf("%s: tracked %v, want %v", what, got, want)
		}
	}
	check("before", "127.0.0.1>127.0.0.2", "127.0.0.2>127.0.0.3", "127.0.0.3>127.0.0.1")
	must(t, c.ForgetMark(0x8, 0x8))
	check("a mark that none has", "127.0.0.1>127.0.0.2", "127.0.0.2>127.0.0.3", "127.0.0.3>127.0.0.1")
	must(t, c.ForgetMark(0x2, 0x2)) // 2 and 3
	check("a bit of the mark", "127.0.0.3>127.0.0.1")
	for _, p := range all {
		send(t, f, p[0], p[1])
	}
	must(t, c.ForgetAddress(netip.MustParseAddr("127.0.0.1")))
	check("an address at either end", "127.0.0.2>127.0.0.3")
	send(t, f, "127.0.0.1", "127.0.0.3")
	send(t, f, "127.0.0.3", "127.0.0.2")
	must(t, c.ForgetPort(unix.IPPROTO_UDP, 10, netip.MustParseAddr("127.0.0.3")))
	must(t, c.ForgetPort(unix.IPPROTO_TCP, 9, netip.MustParseAddr("127.0.0.3")))
	check("another port, another protocol", "127.0.0.1>127.0.0.3", "127.0.0.2>127.0.0.3", "127.0.0.3>127.0.0.2")
	must(t, c.ForgetPort(unix.IPPROTO_UDP, 9, netip.MustParseAddr("127.0.0.3")))
	check("a port of one address", "127.0.0.3>127.0.0.2")
}
