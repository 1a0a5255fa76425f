package link_test

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/gpuhost/gpuhost/network/link"
	"github.com/gpuhost/gpuhost/network/netns"
	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

func TestMain(m *testing.M) { hosttest.Main(m) }

// site is a scratch namespace, a mirror of it, and a namespace beside it.
type site struct {
	t            testing.TB
	here, beside *os.File
	conn         *link.Conn
	mirror       *link.Mirror
}

func newSite(t testing.TB) *site {
	hosttest.Need(t, "ip")
	s := &site{t: t}
	for _, f := range []**os.File{&s.here, &s.beside} {
		scratch, err := netns.Scratch()
		s.must(err)
		t.Cleanup(func() { scratch.Close() })
		*f = scratch
	}
	var err error
	s.conn, err = link.Open(s.here)
	s.must(err)
	t.Cleanup(s.conn.Close)
	s.mirror, err = link.NewMirror(s.conn, s.here)
	s.must(err)
	t.Cleanup(s.mirror.Close)
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// foreign is somebody else's hand: ip, with one command a line.
func (s *site) foreign(commands ...string) {
	s.t.Helper()
	s.must(netns.Do(s.here, func() error {
		c := exec.Command("ip", "-force", "-batch", "-") // what does not fit is passed over
		c.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
		c.Run()
		return nil
	}))
}

// cable lays one whose other end is beside.
func (s *site) cable(name string) {
	s.t.Helper()
	s.must(s.conn.Lay(link.Cable{Name: name, Peer: "p" + name, PeerNetns: s.beside, MTU: 1400}))
}

// check compares the mirror with a full reading.
func (s *site) check(t interface{ Fatalf(string, ...any) }) {
	_, err := s.mirror.Look()
	s.must(err)
	want, err := s.conn.List()
	s.must(err)
	if diff := cmp.Diff(want, s.mirror.Links(), cmpopts.IgnoreUnexported(link.State{})); diff != "" {
		t.Fatalf("the mirror shows something else (-kernel +mirror):\n%s", diff)
	}
	for name := range want {
		addresses, err := s.conn.Addresses(name)
		s.must(err)
		shown, err := s.mirror.Addresses(name)
		s.must(err)
		if diff := cmp.Diff(addresses, shown, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("addresses of %s (-kernel +mirror):\n%s", name, diff)
		}
		if got := s.mirror.Get(name); got == nil || got.Name != name {
			t.Fatalf("Get(%s) = %+v", name, got)
		}
	}
}

func TestAForeignChangeIsSeenAtTheNextLook(t *testing.T) {
	tests := []struct{ name, change string }{
		{"down", "link set va down"},
		{"gone", "link del va"},
		{"another name", "link set va down\nlink set a name vc"},
		{"another note", "link set va alias x"},
		{"a note while it is down", "link set vb alias x"},
		{"names exchanged", "link set va down\nlink set a name vt\nlink set b name va\nlink set t name vb"},
		{"a new link", "link add vd type veth peer name ve"},
		{"a new address", "addr add 10.0.0.9/32 dev va"},
		{"an address less", "addr del 10.0.0.1/32 dev va"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t)
			s.cable("va")
			s.cable("vb")
			s.foreign("addr add 10.0.0.1/32 dev va", "link set va up")
			s.check(t)
			s.foreign(tt.change)
			s.check(t)
		})
	}
}

func TestALookAtWhichNothingHappenedIsTheSame(t *testing.T) {
	s := newSite(t)
	s.cable("va")
	s.foreign("link set va up", "link add vb type veth peer name vc", "link set vb up", "link set vc up")
	s.foreign("link del va")
	first, err := s.mirror.Look()
	s.must(err)
	second, err := s.mirror.Look()
	s.must(err)
	s.foreign("link set vb alias x")
	third, err := s.mirror.Look()
	s.must(err)
	if first != second || second == third {
		t.Errorf("versions %d, %d with nothing between, %d after a change", first, second, third)
	}
}

// More happens between two looks than the socket holds: what it was told last, that
// vc is gone and ve has an address, is not among it. Both are at rest: they are not
// read without being named.
func TestWhatTheSocketLostIsReadAgain(t *testing.T) {
	s := newSite(t)
	for _, pair := range []string{"va type veth peer name vb", "vc type veth peer name vd", "ve type veth peer name vf"} {
		s.foreign("link add " + pair)
	}
	s.foreign("link set vc up", "link set vd up", "link set ve up", "link set vf up")
	s.check(t)
	s.foreign(slices.Repeat([]string{"link set va up", "link set va down"}, 2000)...)
	s.foreign("link del vc", "addr add 10.0.0.1/32 dev ve")
	s.check(t)
}

// Whatever others do, the mirror shows what a full reading shows.
func TestMirrorEqualsAFullReading(t *testing.T) {
	s := newSite(t)
	names := []string{"va", "vb", "vc", "vd"}
	rapid.Check(t, func(t *rapid.T) {
		var commands []string
		for range rapid.IntRange(1, 6).Draw(t, "changes") {
			name := rapid.SampledFrom(names).Draw(t, "link")
			address := fmt.Sprintf("10.0.0.%d/32", rapid.IntRange(1, 3).Draw(t, "address"))
			commands = append(commands, rapid.SampledFrom([]string{
				"link add " + name + " type veth peer name p" + name,
				"link del " + name, "link set " + name + " up", "link set p" + name + " up", "link set " + name + " down",
				"link set " + name + " alias " + rapid.SampledFrom(names).Draw(t, "alias"),
				"link set " + name + " name " + rapid.SampledFrom(names).Draw(t, "new name"),
				"addr add " + address + " dev " + name, "addr del " + address + " dev " + name,
			}).Draw(t, "change"))
		}
		s.foreign(commands...)
		s.check(t)
	})
	for _, name := range slices.Sorted(maps.Keys(s.mirror.Links())) {
		if name != "lo" {
			s.foreign("link del " + name)
		}
	}
	s.check(t)
}
