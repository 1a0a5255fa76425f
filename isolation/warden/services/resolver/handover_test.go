package resolver

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/isolation/warden/services"
)

// served is a server of one VPC, and its control socket.
type served struct {
	*Server
	control *net.UnixAddr
	dns     string
}

func serveOne(t *testing.T) served {
	t.Helper()
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	defer tcp.Close()
	s := served{Server: New(t.Context(), Options{}), dns: udp.LocalAddr().String()}
	if err := s.Set("vpc00001", exampleZone(), &services.Sockets{UDP: fileOf(t, udp), TCP: fileOf(t, tcp)}); err != nil {
		t.Fatal(err)
	}
	s.control = &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"}
	listener, err := net.ListenUnix("unix", s.control)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(t.Context(), listener) }()
	t.Cleanup(func() {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}

func fileOf(t *testing.T, conn interface{ File() (*os.File, error) }) *os.File {
	t.Helper()
	file, err := conn.File()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func (s served) dial(t *testing.T) *net.UnixConn {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, s.control)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// handover asks for it and counts the VPCs that come, or gives the refusal.
func askHandover(t *testing.T, conn *net.UnixConn) (came int, refused fault.Kind) {
	t.Helper()
	if err := services.Send(conn, services.Request{Op: services.OpHandover}, nil); err != nil {
		t.Fatal(err)
	}
	for {
		var reply services.Reply
		sockets, err := services.Receive(conn, &reply)
		if err != nil {
			t.Fatal(err)
		}
		sockets.Close()
		if reply.Handed == nil {
			return came, reply.Kind
		}
		came++
	}
}

func (s served) answers(t *testing.T) {
	t.Helper()
	client := dns.Client{Timeout: 10 * time.Second}
	reply, _, err := client.Exchange(new(dns.Msg).SetQuestion("train-1.default.internal.", dns.TypeA), s.dns)
	if err != nil || len(reply.Answer) == 0 {
		t.Errorf("have %v, %v", reply, err)
	}
}

// TestHandoverAskedForTwice: the second is refused and undoes nothing; when the
// successor is gone, names are answered again.
func TestHandoverAskedForTwice(t *testing.T) {
	s := serveOne(t)
	conn := s.dial(t)
	if came, refused := askHandover(t, conn); came != 1 || refused != "" {
		t.Fatalf("%d came, %q", came, refused)
	}
	if came, refused := askHandover(t, conn); came != 0 || refused != fault.Conflict {
		t.Errorf("again: %d came, %q", came, refused)
	}
	conn.Close()
	s.answers(t)
	other := s.dial(t)
	defer other.Close()
	if came, refused := askHandover(t, other); came != 1 || refused != "" {
		t.Errorf("the next successor: %d came, %q", came, refused)
	}
}

// TestWhatCannotBeReadAgainIsLetGo: the agent then finds it missing.
func TestWhatCannotBeReadAgainIsLetGo(t *testing.T) {
	s := serveOne(t)
	h, err := s.handOver()
	if err != nil {
		t.Fatal(err)
	}
	s.vpcs["vpc00001"].sockets.UDP.Close()
	if lost := h.Abort(); len(lost) != 1 || len(s.List()) != 0 {
		t.Errorf("lost %v, still there %v", lost, s.List())
	}
	if err := s.Set("vpc00001", exampleZone(), nil); !fault.Is(err, fault.NotFound) {
		t.Errorf("have %v", err)
	}
}
