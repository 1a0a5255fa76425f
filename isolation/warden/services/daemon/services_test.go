package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/isolation/warden/launch"
	"github.com/gpuhost/gpuhost/isolation/warden/services"
	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

func TestMain(m *testing.M) { hosttest.Main(m) }

func TestAnswersFromInsideARouterNamespace(t *testing.T) {
	s := start(t, upstream(t))
	c := s.dial(t)
	router := newRouter(t)
	router.serve(t, c, "vpc00001", zone(1, "10.0.1.10"))
	tests := []struct{ transport, query, want string }{
		{"udp", "train-1. A", "NOERROR 10.0.1.10"},
		{"tcp", "train-1.default.internal. A", "NOERROR 10.0.1.10"},
		{"udp", "train-2. A", "NXDOMAIN"},
		{"udp", "example.com. A", "NOERROR 203.0.113.7"},
		{"tcp", "example.com. A", "NOERROR 203.0.113.7"},
		{"tcp", "large.example. TXT", "NOERROR " + fmt.Sprintf("%q", strings.Repeat("x", 200))},
		{"udp", "broken.example. A", "SERVFAIL"},
		{"udp", "spoofed.example. A", "SERVFAIL"},
	}
	for _, tt := range tests {
		if got := router.ask(t, tt.transport, tt.query); got != tt.want {
			t.Errorf("%s over %s: got %s, want %s", tt.query, tt.transport, got, tt.want)
		}
	}
	list, err := c.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []services.VPC{{UID: "vpc00001", Generation: 1, Domain: "default.internal", Hosts: 1,
		Counters: services.Counters{Queries: 8, Forwarded: 4, Cached: 1, Failed: 2}}}
	if diff := cmp.Diff(want, list); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
}

func TestOverlappingVPCsAreApart(t *testing.T) {
	s := start(t, "127.0.0.1:1")
	c := s.dial(t)
	one, two := newRouter(t), newRouter(t)
	one.serve(t, c, "vpc00001", zone(1, "10.0.1.10"))
	two.serve(t, c, "vpc00002", zone(1, "10.0.1.99"))
	got := []string{one.ask(t, "udp", "train-1. A"), two.ask(t, "udp", "train-1. A")}
	if diff := cmp.Diff([]string{"NOERROR 10.0.1.10", "NOERROR 10.0.1.99"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUpstreamAwayIsServfail(t *testing.T) {
	s := start(t, "127.0.0.1:1")
	router := newRouter(t)
	router.serve(t, s.dial(t), "vpc00001", zone(1, "10.0.1.10"))
	if got := router.ask(t, "udp", "example.com. A"); got != "SERVFAIL" {
		t.Errorf("got %s", got)
	}
	if got := router.ask(t, "udp", "train-1. A"); got != "NOERROR 10.0.1.10" {
		t.Errorf("own name: got %s", got)
	}
}

// The agent goes and comes again: names are answered meanwhile, and the next
// agent finds what is served, changes it and removes it.
func TestOutlivesTheAgent(t *testing.T) {
	s := start(t, "127.0.0.1:1")
	first := s.dial(t)
	router := newRouter(t)
	router.serve(t, first, "vpc00001", zone(5, "10.0.1.10"))
	first.Close()
	if got := router.ask(t, "udp", "train-1. A"); got != "NOERROR 10.0.1.10" {
		t.Errorf("without an agent: %s", got)
	}

	second := s.dial(t)
	if err := second.SetVPC(t.Context(), "vpc00001", nil, nil, zone(4, "10.0.1.66")); !fault.Is(err, fault.Conflict) {
		t.Errorf("an older zone: %v", err)
	}
	if err := second.SetVPC(t.Context(), "vpc00009", nil, nil, zone(1, "10.0.1.66")); !fault.Is(err, fault.NotFound) {
		t.Errorf("a VPC without sockets: %v", err)
	}
	if err := second.SetVPC(t.Context(), "vpc00001", nil, nil, zone(6, "10.0.1.11")); err != nil {
		t.Fatal(err)
	}
	if got := router.ask(t, "udp", "train-1. A"); got != "NOERROR 10.0.1.11" {
		t.Errorf("after the push: %s", got)
	}
	for range 2 {
		if err := second.RemoveVPC(t.Context(), "vpc00001"); err != nil {
			t.Fatal(err)
		}
	}
	if got := router.ask(t, "udp", "train-1. A"); !strings.Contains(got, "refused") {
		t.Errorf("after removal: %s", got)
	}
}

// Queries are asked without pause and without a second try while one process
// follows another: each gets its answer.
func TestUpgradeLosesNoQuery(t *testing.T) {
	s := start(t, "127.0.0.1:1")
	c := s.dial(t)
	router := newRouter(t)
	router.serve(t, c, "vpc00001", zone(3, "10.0.1.10"))
	before := s.pid(t, c)
	ctx, stop := context.WithCancel(t.Context())
	type result struct{ asked, answered int }
	results := make(chan result)
	go func() {
		var r result
		conn := router.dialUDP(t)
		defer conn.Close()
		for ctx.Err() == nil {
			r.asked++
			if exchange(conn, "train-1. A") == "NOERROR 10.0.1.10" {
				r.answered++
			}
		}
		results <- r
	}()
	for range 3 {
		if err := s.UpgradeServices(t.Context(), s.options); err != nil {
			t.Error(err)
		}
	}
	stop()
	r := <-results
	t.Logf("%d queries over 3 upgrades", r.asked)
	if r.answered != r.asked || r.asked < 10 {
		t.Errorf("%d of %d queries answered", r.answered, r.asked)
	}
	c = s.dial(t)
	if after := s.pid(t, c); after == before {
		t.Error("the process is still the same")
	}
	list, err := c.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Generation != 3 {
		t.Errorf("after the upgrade: %v, %v", list, err)
	}
}

// A successor that dies before it serves leaves the predecessor at work.
func TestBrokenUpgradeChangesNothing(t *testing.T) {
	s := start(t, "127.0.0.1:1")
	router := newRouter(t)
	router.serve(t, s.dial(t), "vpc00001", zone(3, "10.0.1.10"))
	successor := s.dial(t)
	handed := 0
	err := successor.TakeOver(t.Context(), func(_ services.Handed, sockets *services.Sockets) error {
		handed++
		sockets.Close()
		return nil
	})
	if err != nil || handed != 1 {
		t.Fatalf("handed %d, %v", handed, err)
	}
	if err := s.dial(t).SetVPC(t.Context(), "vpc00001", nil, nil, zone(4, "10.0.1.11")); !fault.Is(err, fault.Temporary) {
		t.Errorf("set during a handover: %v", err)
	}
	successor.Close()
	if got := router.ask(t, "udp", "train-1. A"); got != "NOERROR 10.0.1.10" {
		t.Errorf("after the successor's death: %s", got)
	}
}

func TestStartServicesTwice(t *testing.T) {
	s := start(t, "127.0.0.1:1")
	before := s.pid(t, s.dial(t))
	if err := s.StartServices(t.Context(), s.options); err != nil {
		t.Fatal(err)
	}
	if after := s.pid(t, s.dial(t)); after != before {
		t.Errorf("process %d instead of %d", after, before)
	}
}

func TestProcessHasNoPrivilege(t *testing.T) {
	s := start(t, "127.0.0.1:1")
	pid := s.pid(t, s.dial(t))
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		got[name] = strings.TrimSpace(value)
	}
	for name, want := range map[string]string{
		"Uid": "65534\t65534\t65534\t65534", "Groups": "", "CapEff": "0000000000000000", "CapPrm": "0000000000000000",
		"NoNewPrivs": "1", "Seccomp": "2",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
}

// BenchmarkQueries is how many queries for an instance's name one client gets
// answered, one after the other, through the namespace's loopback.
func BenchmarkQueries(b *testing.B) {
	s := start(b, "127.0.0.1:1")
	router := newRouter(b)
	router.serve(b, s.dial(b), "vpc00001", zone(1, "10.0.1.10"))
	conn := router.dialUDP(b)
	defer conn.Close()
	packet, err := new(dns.Msg).SetQuestion("train-1.default.internal.", dns.TypeA).Pack()
	if err != nil {
		b.Fatal(err)
	}
	const window = 32 // queries under way
	answer := make([]byte, 512)
	sent, got := 0, 0
	for b.Loop() {
		for ; sent < got+window; sent++ {
			if _, err := conn.Write(packet); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := conn.Read(answer); err != nil {
			b.Fatal(err)
		}
		got++
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "queries/s")
}

// service is a running process and its launcher.
type service struct {
	*launch.Launcher
	options launch.ServicesOptions
}

const nobody = 65534

func start(t testing.TB, server string) service {
	t.Helper()
	hosttest.Need(t)
	dir, err := os.MkdirTemp("", "services")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := service{
		launch.New(launch.Config{
			Paths: isolation.Paths{}, Services: hosttest.Build(t, "./isolation/warden/services/daemon"),
			UID: nobody, GID: nobody, Stderr: os.Stderr,
		}),
		launch.ServicesOptions{Socket: filepath.Join(dir, "socket"), Upstreams: []string{server}},
	}
	if err := s.StartServices(t.Context(), s.options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c, err := services.Dial(context.Background(), s.options.Socket)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		status, err := c.Status(context.Background())
		if err != nil {
			t.Error(err)
			return
		}
		if err := unix.Kill(status.Pid, unix.SIGTERM); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s service) dial(t testing.TB) *services.Client {
	t.Helper()
	c, err := services.Dial(t.Context(), s.options.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (s service) pid(t testing.TB, c *services.Client) int {
	t.Helper()
	status, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return status.Pid
}

func zone(generation uint64, address string) services.Zone {
	return services.Zone{Generation: generation, Domain: "default.internal",
		Hosts: []services.Host{{Name: "train-1", Addresses: addrs(address)}}}
}

func (r *router) serve(t testing.TB, c *services.Client, vpc spec.UID, z services.Zone) {
	t.Helper()
	udp, tcp := r.sockets(t)
	defer udp.Close()
	defer tcp.Close()
	if err := c.SetVPC(t.Context(), vpc, udp, tcp, z); err != nil {
		t.Fatal(err)
	}
}

// ask asks once and gives the answer in short.
func (r *router) ask(t testing.TB, transport, query string) string {
	t.Helper()
	if transport == "tcp" {
		var conn net.Conn
		r.do(func() {
			var err error
			if conn, err = net.Dial("tcp4", resolverAddress); err != nil {
				t.Error(err)
			}
		})
		defer conn.Close()
		return exchange(conn, query)
	}
	conn := r.dialUDP(t)
	defer conn.Close()
	return exchange(conn, query)
}

func (r *router) dialUDP(t testing.TB) (conn net.Conn) {
	t.Helper()
	r.do(func() {
		var err error
		if conn, err = net.Dial("udp4", resolverAddress); err != nil {
			t.Error(err)
		}
	})
	return conn
}

func exchange(conn net.Conn, query string) string {
	name, kind, _ := strings.Cut(query, " ")
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err.Error()
	}
	co := dns.Conn{Conn: conn}
	if err := co.WriteMsg(new(dns.Msg).SetQuestion(name, dns.StringToType[kind])); err != nil {
		return err.Error()
	}
	m, err := co.ReadMsg()
	if err != nil {
		return err.Error()
	}
	out := dns.RcodeToString[m.Rcode]
	for _, rr := range m.Answer {
		out += " " + strings.TrimPrefix(rr.String(), rr.Header().String())
	}
	return out
}
