package services

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
)

func TestZoneValidate(t *testing.T) {
	address := []netip.Addr{netip.MustParseAddr("10.0.0.1")}
	tests := []struct {
		name string
		zone Zone
		ok   bool
	}{
		{"plain", Zone{Domain: "default.internal", Hosts: []Host{{Name: "a-1", Addresses: address}}}, true},
		{"no hosts", Zone{Domain: "x"}, true},
		{"no domain", Zone{}, false},
		{"empty label", Zone{Domain: "a..b"}, false},
		{"upper case", Zone{Domain: "A"}, false},
		{"long domain", Zone{Domain: strings.Repeat("a.", 101) + "b"}, false},
		{"host with a dot", Zone{Domain: "x", Hosts: []Host{{Name: "a.b"}}}, false},
		{"host with a dash first", Zone{Domain: "x", Hosts: []Host{{Name: "-a"}}}, false},
		{"no address", Zone{Domain: "x", Hosts: []Host{{Name: "a", Addresses: []netip.Addr{{}}}}}, false},
		{"scoped address", Zone{Domain: "x", Hosts: []Host{{Name: "a", Addresses: []netip.Addr{netip.MustParseAddr("fe80::1%eth0")}}}}, false},
		{"too many", Zone{Domain: "x", Hosts: make([]Host, maxHosts+1)}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.zone.Validate()
			if (err == nil) != tt.ok || (err != nil && !fault.Is(err, fault.Invalid)) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestMessagesAndSocketsTravel(t *testing.T) {
	a, b := pair(t)
	udp, tcp, err := os.Pipe() // any two files
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	defer tcp.Close()
	sent := Request{Op: OpSet, VPC: "vpc00001", Zone: &Zone{Generation: 3, Domain: "x", Hosts: []Host{{Name: "a"}}}}
	if err := Send(a, sent, &Sockets{udp, tcp}); err != nil {
		t.Fatal(err)
	}
	if err := Send(a, Request{Op: OpList}, nil); err != nil {
		t.Fatal(err)
	}
	var got Request
	sockets, err := Receive(b, &got)
	if err != nil || sockets == nil {
		t.Fatalf("%v, %v", sockets, err)
	}
	defer sockets.Close()
	if diff := cmp.Diff(sent, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := sockets.TCP.WriteString("x"); err != nil {
		t.Errorf("the second file came wrong: %v", err)
	}
	if sockets, err := Receive(b, &got); err != nil || sockets != nil || got.Op != OpList {
		t.Errorf("second message: %v, %v, %v", got, sockets, err)
	}
	a.Close()
	if _, err := Receive(b, &got); !errors.Is(err, io.EOF) {
		t.Errorf("end: %v", err)
	}
}

// FuzzDecode feeds the control decoder: no panic, and what it takes and validates
// is a request that encodes and decodes to itself.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"op":"set","vpc":"vpc00001","zone":{"generation":1,"domain":"d.internal","hosts":[{"name":"a","addresses":["10.0.0.1"]}]}}`))
	f.Add([]byte(`{"op":"list"} {}`))
	f.Add([]byte(`{"op":"remove","vpc":"x"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var request Request
		if decode(bytes.NewReader(body), uint32(len(body)), &request) != nil || request.Validate(nil) != nil {
			return
		}
		text, err := json.Marshal(request)
		if err != nil {
			t.Fatal(err)
		}
		var again Request
		if err := decode(bytes.NewReader(text), uint32(len(text)), &again); err != nil {
			t.Fatal(err)
		}
		if second, err := json.Marshal(again); err != nil || !bytes.Equal(text, second) {
			t.Fatalf("%s became %s, %v", text, second, err)
		}
	})
}

func TestDecodeRefuses(t *testing.T) {
	for _, body := range []string{"", "x", `{"op":"list","more":1}`, `{"op":"list"}{}`, `{"op":"list"} x`} {
		var request Request
		if err := decode(strings.NewReader(body), uint32(len(body)), &request); err == nil {
			t.Errorf("%q was taken", body)
		}
	}
	if err := decode(strings.NewReader(""), maxMessage+1, new(Request)); !fault.Is(err, fault.Invalid) {
		t.Errorf("a message too long: %v", err)
	}
}

func pair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "pair")
		conn, err := net.FileConn(file)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		ends[i] = conn.(*net.UnixConn)
	}
	return ends[0], ends[1]
}
