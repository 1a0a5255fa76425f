package router_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network"
	"github.com/gpuhost/gpuhost/network/netns"
	"github.com/gpuhost/gpuhost/network/router"
	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

func TestMain(m *testing.M) { hosttest.Main(m) }

const (
	hostID      = "test1"
	hostAddress = "203.0.113.1" // the host's, on its uplink
	outside     = "203.0.113.2" // somebody on the internet
	management  = "192.0.2.2"   // somebody on the operator's network
	cloud       = "169.254.169.254"
	patience    = 5 * time.Second
	refusal     = 300 * time.Millisecond
)

// world is a host with an uplink, the internet behind it, and an operator's
// network beside it.
type world struct {
	t      testing.TB
	dir    string
	order  order
	kernel *router.Kernel
	room   *network.Room
	vpcs   map[spec.UID]*network.VPC
}

// order is which comes first, an instance's guard or its link.
type order bool

const (
	guardFirst order = false // as the kernel allows
	linkFirst  order = true  // as kernels before 6.16 ask for
)

// inBothOrders runs a test on a host of its own in each order.
func inBothOrders(t *testing.T, test func(t *testing.T, w *world)) {
	t.Run("guard first", func(t *testing.T) { test(t, newWorld(t, guardFirst)) })
	t.Run("link first", func(t *testing.T) { test(t, newWorld(t, linkFirst)) })
}

func newWorld(t testing.TB, o order) *world {
	hosttest.Need(t, "ip", "nft")
	w := &world{t: t, dir: t.TempDir(), order: o, vpcs: map[spec.UID]*network.VPC{}}
	w.neighbour("internet", "uplink", hostAddress, outside)
	w.neighbour("operator", "mgmt", "192.0.2.1", management)
	w.start()
	t.Cleanup(w.end)
	return w
}

// start makes the room, as a new process would.
func (w *world) start() {
	var err error
	w.kernel, err = router.New(router.Config{
		HostID: hostID, NetnsDir: filepath.Join(w.dir, "netns"), Opened: filepath.Join(w.dir, "forwarding"), LinkFirst: bool(w.order),
	})
	w.must(err)
	w.room, err = network.New(network.Deps{HostID: hostID, Kernel: w.kernel})
	w.must(err)
}

// end removes everything through the room, as the agent would.
func (w *world) end() {
	for uid := range w.vpcs {
		w.converge(uid, nil)
	}
	w.host(nil)
	w.must(w.kernel.Close())
	for _, device := range []string{"uplink", "mgmt"} {
		w.run("ip", "link", "del", device)
	}
	pins, err := filepath.Glob(filepath.Join(w.dir, "*.netns"))
	w.must(err)
	for _, pin := range pins {
		w.must(netns.Delete(pin))
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) run(name string, args ...string) string {
	w.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		w.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (w *world) pin(name string) string { return filepath.Join(w.dir, name+".netns") }

// neighbour makes a namespace on a cable of its own beside the host.
func (w *world) neighbour(name, device, here, there string) {
	w.must(netns.Create(w.pin(name)))
	w.run("ip", "link", "add", device, "type", "veth", "peer", "name", "eth0")
	w.moveTo(name)
	w.run("ip", "addr", "add", here+"/24", "dev", device)
	w.run("ip", "link", "set", device, "up")
	w.in(name, func() error {
		return errors.Join(exec.Command("ip", "addr", "add", there+"/24", "dev", "eth0").Run(),
			exec.Command("ip", "link", "set", "eth0", "up").Run())
	})
}

// moveTo moves eth0 from here into a pinned namespace.
func (w *world) moveTo(name string) {
	holder := exec.Command("nsenter", "--net="+w.pin(name), "cat")
	stdin, err := holder.StdinPipe()
	w.must(err)
	w.must(holder.Start())
	w.eventually("the holder to enter "+name, func() bool {
		a, err1 := os.Stat(fmt.Sprintf("/proc/%d/ns/net", holder.Process.Pid))
		b, err2 := os.Stat(w.pin(name))
		return err1 == nil && err2 == nil && os.SameFile(a, b)
	})
	w.run("ip", "link", "set", "eth0", "netns", fmt.Sprint(holder.Process.Pid))
	w.must(stdin.Close())
	w.must(holder.Wait())
}

// in runs fn inside a pinned namespace.
func (w *world) in(name string, fn func() error) {
	w.t.Helper()
	w.must(w.try(name, fn))
}

func (w *world) try(name string, fn func() error) error {
	if name == "host" {
		return fn()
	}
	f, err := netns.Open(w.pin(name))
	if err != nil {
		return err
	}
	return errors.Join(netns.Do(f, fn), f.Close())
}

func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			w.t.Fatalf("waited %s in vain for %s", patience, what)
		case <-tick.C:
		}
	}
}

// vpc describes a network with the groups of most tests.
func (w *world) vpc(uid spec.UID, number int) *network.VPC {
	any4 := "0.0.0.0/0"
	v := &network.VPC{
		UID: uid, Tenant: "acme", Name: string(uid), CIDR: netip.MustParsePrefix("10.0.0.0/16"),
		Transit: network.Transit{
			Host:   netip.AddrFrom4([4]byte{100, 127, 0, byte(2 * number)}),
			Router: netip.AddrFrom4([4]byte{100, 127, 0, byte(2*number + 1)}),
		},
		Protected: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix(hostAddress + "/32")},
		Groups: map[string]network.Group{
			"default": group([]spec.Rule{{Action: "accept", Protocol: "all", Remote: "sg:default"}}, any4),
			"web":     group([]spec.Rule{{Action: "accept", Protocol: "tcp", Ports: "80,2000-2009", Remote: any4}, {Action: "accept", Protocol: "icmp", Remote: "10.0.0.0/8"}}, any4),
			"open":    group([]spec.Rule{{Action: "accept", Protocol: "all", Remote: any4}}, any4),
			"shut":    {},
		},
	}
	w.vpcs[uid] = v
	return v
}

func group(ingress []spec.Rule, egress string) network.Group {
	return network.Group{Spec: spec.SecurityGroupSpec{
		Ingress: ingress, Egress: []spec.Rule{{Action: "accept", Protocol: "all", Remote: egress}},
	}}
}

// endpoint adds an instance to a network.
func (w *world) endpoint(v *network.VPC, uid spec.UID, address string, groups ...string) network.Endpoint {
	w.must(netns.Create(w.pin(string(uid))))
	e := network.Endpoint{
		Instance: uid, Name: string(uid), Address: netip.MustParseAddr(address), Groups: groups, Netns: w.pin(string(uid)),
	}
	v.Endpoints = append(v.Endpoints, e)
	return e
}

// converge brings a network to what is wanted, endpoints included.
func (w *world) converge(uid spec.UID, want *network.VPC) {
	w.t.Helper()
	ctx := context.Background()
	have, err := w.room.Observe(ctx, uid)
	w.must(err)
	p, err := w.room.Plan(want, uid, have)
	w.must(err)
	w.apply(p)
	if want == nil {
		return
	}
	for _, e := range want.Endpoints {
		w.apply(w.room.PlanEndpoint(*want, e, have))
	}
	w.converged(uid, want)
}

// load brings a network's rules in force and attaches nothing.
func (w *world) load(v *network.VPC) {
	w.t.Helper()
	have, err := w.room.Observe(context.Background(), v.UID)
	w.must(err)
	p, err := w.room.Plan(v, v.UID, have)
	w.must(err)
	w.apply(p)
}

// converged checks that nothing is left to do.
func (w *world) converged(uid spec.UID, want *network.VPC) {
	w.t.Helper()
	have, err := w.room.Observe(context.Background(), uid)
	w.must(err)
	p, err := w.room.Plan(want, uid, have)
	w.must(err)
	for _, e := range want.Endpoints {
		p = plan.Merge(p, w.room.PlanEndpoint(*want, e, have))
	}
	if !p.Empty() {
		w.t.Fatalf("after apply there is still to do:\n%s", p.Text())
	}
}

func (w *world) apply(p plan.Plan) {
	w.t.Helper()
	ordered, err := p.Ordered()
	w.must(err)
	for _, s := range ordered.Steps {
		if err := w.room.Apply(context.Background(), s, nil); err != nil {
			w.t.Fatalf("apply %s: %v", s.ID, err)
		}
	}
}

// host brings the host's table to what the networks want; nil removes it.
func (w *world) host(vpcs []*network.VPC) {
	w.t.Helper()
	var want *network.HostWant
	if vpcs != nil {
		all := hostWant(vpcs...)
		want = &all
	}
	have, err := w.room.ObserveHost(context.Background())
	w.must(err)
	p, err := w.room.PlanHost(want, have)
	w.must(err)
	w.apply(p)
}

// serve answers every TCP connection to a port inside a namespace: it sends the
// peer's address, then echoes.
func (w *world) serve(where string, port int) {
	var l net.Listener
	w.in(where, func() (err error) {
		l, err = net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", port))
		return err
	})
	w.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
				fmt.Fprintf(c, "%-15s", host)
				io.Copy(c, c)
			}()
		}
	}()
}

// dial connects and says which address the server saw.
func (w *world) dial(from, to string, port int) (conn net.Conn, seen string, err error) {
	return w.dialFor(from, to, port, patience)
}

func (w *world) dialFor(from, to string, port int, wait time.Duration) (conn net.Conn, seen string, err error) {
	err = w.try(from, func() error {
		conn, err = net.DialTimeout("tcp4", fmt.Sprintf("%s:%d", to, port), wait)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	hello := make([]byte, 15)
	conn.SetReadDeadline(time.Now().Add(patience))
	_, err = io.ReadFull(conn, hello)
	return conn, strings.TrimSpace(string(hello)), err
}

// connect opens a connection that ends with the test.
func (w *world) connect(from, to string, port int) net.Conn {
	w.t.Helper()
	conn, _, err := w.dial(from, to, port)
	w.must(err)
	w.t.Cleanup(func() { conn.Close() })
	return conn
}

// dialAs connects from one address of a namespace.
func (w *world) dialAs(where, from, to string, port int) (conn net.Conn, err error) {
	err = w.try(where, func() error {
		dialer := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		conn, err = dialer.Dial("tcp4", net.JoinHostPort(to, fmt.Sprint(port)))
		return err
	})
	if err == nil {
		_, err = io.ReadFull(conn, make([]byte, 15)) // the server's hello
	}
	return conn, err
}

func (w *world) reaches(from, to string, port int) string {
	w.t.Helper()
	conn, seen, err := w.dial(from, to, port)
	if err != nil {
		w.t.Fatalf("%s does not reach %s port %d: %v", from, to, port, err)
	}
	conn.Close()
	return seen
}

func (w *world) refused(from, to string, port int) {
	w.t.Helper()
	conn, _, err := w.dialFor(from, to, port, refusal)
	if err == nil {
		conn.Close()
		w.t.Fatalf("%s reaches %s port %d and must not", from, to, port)
	}
}

func (w *world) pings(from, to string) bool {
	return w.try(from, func() error { return exec.Command("busybox", "ping", "-c1", "-W1", to).Run() }) == nil
}

// echoes says whether an open connection still carries data both ways.
func echoes(conn net.Conn, wait time.Duration) bool {
	conn.SetDeadline(time.Now().Add(wait))
	if _, err := conn.Write([]byte("x")); err != nil {
		return false
	}
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err == nil
}

func (w *world) rules(vpc spec.UID) string {
	f, err := os.Open(filepath.Join(w.dir, "netns", "vpc-"+string(vpc)))
	w.must(err)
	defer f.Close()
	var out []byte
	w.must(netns.Do(f, func() error {
		out, err = exec.Command("nft", "list", "ruleset").CombinedOutput()
		return err
	}))
	return string(out)
}

// sink receives datagrams in a namespace.
func (w *world) sink(where string, port int) *net.UDPConn {
	var l *net.UDPConn
	w.in(where, func() (err error) {
		l, err = net.ListenUDP("udp4", &net.UDPAddr{Port: port})
		return err
	})
	w.t.Cleanup(func() { l.Close() })
	return l
}

// datagrams sends n datagrams from one new port.
func (w *world) datagrams(from, to string, n, size int) {
	w.t.Helper()
	w.in(from, func() error {
		c, err := net.Dial("udp4", to)
		if err != nil {
			return err
		}
		defer c.Close()
		for range n {
			if _, err := c.Write(make([]byte, size)); err != nil {
				return err
			}
		}
		return nil
	})
}

// receive waits for n datagrams and gives their sizes.
func (w *world) receive(l *net.UDPConn, n int) []int {
	w.t.Helper()
	l.SetReadDeadline(time.Now().Add(patience))
	buffer := make([]byte, 2000)
	var sizes []int
	for range n {
		size, err := l.Read(buffer)
		if err != nil {
			w.t.Fatalf("datagram %d of %d: %v", len(sizes)+1, n, err)
		}
		sizes = append(sizes, size)
	}
	return sizes
}

// nftIn runs the nft command as somebody who tampers would.
func (w *world) nftIn(vpc spec.UID, command string) {
	w.t.Helper()
	if command == "" {
		return
	}
	f, err := os.Open(filepath.Join(w.dir, "netns", "vpc-"+string(vpc)))
	w.must(err)
	defer f.Close()
	w.must(netns.Do(f, func() error {
		out, err := exec.Command("nft", command).CombinedOutput()
		if err != nil {
			return fmt.Errorf("nft %s: %w\n%s", command, err, out)
		}
		return nil
	}))
}

func firstFailure(controls []spec.Control) string {
	for _, c := range controls {
		if !c.Pass {
			return c.ID + " " + c.Found
		}
	}
	return ""
}

// stripCounters takes the readings out of a listing.
func stripCounters(listing string) string {
	var lines []string
	for line := range strings.Lines(listing) {
		if !strings.Contains(line, "packets ") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// changeMAC is what a tenant might do; the kernel forgets the gateway's neighbour
// entry with it, so he puts it back.
func (w *world) changeMAC(instance, mac string) {
	w.t.Helper()
	w.in(instance, func() error {
		return errors.Join(exec.Command("ip", "link", "set", "eth0", "address", mac).Run(),
			exec.Command("ip", "neigh", "replace", network.Gateway().String(), "lladdr", network.RouterMAC().String(), "dev", "eth0", "nud", "permanent").Run())
	})
}

// devices names the host's devices.
func (w *world) devices() string {
	w.t.Helper()
	var names []string
	for line := range strings.Lines(w.run("ip", "-br", "link")) {
		names = append(names, strings.Fields(line)[0])
	}
	return strings.Join(names, " ")
}
