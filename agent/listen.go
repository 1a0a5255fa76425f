package agent

import (
	"net"
	"strconv"

	"github.com/gpuhost/gpuhost/agent/spec"
)

// listens says whether something on this host answers on a port, of any of its
// addresses: it tries to take the port itself, for a moment.
func listens(p spec.Publish) bool {
	all := net.JoinHostPort("", strconv.Itoa(int(p.HostPort)))
	if p.Protocol == "udp" {
		l, err := net.ListenPacket("udp", all)
		return err != nil || l.Close() != nil
	}
	l, err := net.Listen("tcp", all)
	return err != nil || l.Close() != nil
}
