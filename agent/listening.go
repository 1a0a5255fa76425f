package agent

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gpuhost/gpuhost/agent/spec"
)

// What of /proc/net says that a socket waits for whoever comes.
const (
	stateListen      = "0A" // TCP_LISTEN
	stateUnconnected = "07" // a UDP socket without a peer: TCP_CLOSE
)

// listening are the ports on which something in the namespace of this process
// answers from outside. Sockets of UDP on ports that the kernel gives to clients are
// left out: they come and go with each question that the host asks.
func listening(proc string) (map[spec.Publish]bool, error) {
	clients, err := clientPorts(proc)
	if err != nil {
		return nil, err
	}
	found := make(map[spec.Publish]bool)
	for _, file := range []struct{ name, protocol, state string }{
		{"tcp", "tcp", stateListen}, {"tcp6", "tcp", stateListen}, {"udp", "udp", stateUnconnected}, {"udp6", "udp", stateUnconnected},
	} {
		text, err := os.ReadFile(filepath.Join(proc, "self/net", file.name))
		if os.IsNotExist(err) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("list sockets: %w", err)
		}
		for _, port := range waiting(string(text), file.state) {
			if file.protocol == "tcp" || !clients.Contains(port) {
				found[spec.Publish{HostPort: port, Protocol: file.protocol}] = true
			}
		}
	}
	return found, nil
}

// waiting are the ports of the sockets in a state, those on the loopback aside.
func waiting(sockets, state string) []uint16 {
	var ports []uint16
	for line := range strings.Lines(sockets) {
		fields := strings.Fields(line)
		if len(fields) < 4 || fields[3] != state {
			continue
		}
		address, text, _ := strings.Cut(fields[1], ":")
		port, err := hex.DecodeString(text)
		if err != nil || len(port) != 2 || loopback(address) {
			continue
		}
		ports = append(ports, uint16(port[0])<<8|uint16(port[1]))
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// loopback says whether an address, as the kernel writes its words on this machine, is
// in 127/8, mapped into IPv6 or not, or ::1.
func loopback(address string) bool {
	const last = 2 // digits of an IPv4 address's first byte, on machines that put it last
	v4 := len(address) == 8 || strings.HasPrefix(address, "0000000000000000FFFF0000")
	return v4 && address[len(address)-last:] == "7F" || address == "00000000000000000000000001000000"
}

// clientPorts is the range from which the kernel gives clients their ports.
func clientPorts(proc string) (spec.PortRange, error) {
	text, err := os.ReadFile(filepath.Join(proc, "sys/net/ipv4/ip_local_port_range"))
	if err != nil {
		return spec.PortRange{}, fmt.Errorf("read the range of clients' ports: %w", err)
	}
	ranges, err := spec.ParsePorts(strings.Join(strings.Fields(string(text)), "-"))
	if err != nil {
		return spec.PortRange{}, fmt.Errorf("read the range of clients' ports: %w", err)
	}
	if len(ranges) != 1 {
		return spec.PortRange{}, fmt.Errorf("read the range of clients' ports: %q is not one", text)
	}
	return ranges[0], nil
}
