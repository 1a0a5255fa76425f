package agent

import (
	"net"
	"testing"

	"github.com/gpuhost/gpuhost/agent/spec"
)

func TestListens(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::]:0"} {
		stream, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		port := uint16(stream.Addr().(*net.TCPAddr).Port)
		tcp, udp := spec.Publish{HostPort: port, Protocol: "tcp"}, spec.Publish{HostPort: port, Protocol: "udp"}
		if !listens(tcp) || listens(udp) {
			t.Errorf("TCP on %s: listens by TCP %v, by UDP %v", address, listens(tcp), listens(udp))
		}
		stream.Close()
		packets, err := net.ListenPacket("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		udp.HostPort = uint16(packets.LocalAddr().(*net.UDPAddr).Port)
		if !listens(udp) {
			t.Errorf("UDP on %s is not seen", address)
		}
		packets.Close()
		if listens(tcp) || listens(udp) {
			t.Errorf("after %s was closed something is still seen", address)
		}
	}
}
