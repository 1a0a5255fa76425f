package agent

import (
	"maps"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network"
)

func TestListening(t *testing.T) {
	proc := t.TempDir()
	for name, text := range map[string]string{
		"self/net/tcp": `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0
   2: 0A00000A:1F91 0B00000A:9C40 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0 100 0 0 10 0
`,
		"self/net/tcp6": `  sl  local_address                         remote_address                        st
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000
   1: 00000000000000000000000001000000:0051 00000000000000000000000000000000:0000 0A 00000000:00000000
   2: 0000000000000000FFFF00000100007F:0052 00000000000000000000000000000000:0000 0A 00000000:00000000
`,
		"self/net/udp": `  sl  local_address rem_address   st
 100: 00000000:0035 00000000:0000 07 00000000:00000000
 101: 00000000:9C40 00000000:0000 07 00000000:00000000
`,
		"sys/net/ipv4/ip_local_port_range": "32768\t60999\n",
	} {
		path := filepath.Join(proc, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := listening(proc)
	if err != nil {
		t.Fatal(err)
	}
	want := map[spec.Publish]bool{
		{HostPort: 22, Protocol: "tcp"}: true, {HostPort: 80, Protocol: "tcp"}: true, {HostPort: 53, Protocol: "udp"}: true,
	}
	if !maps.Equal(got, want) {
		t.Error(cmp.Diff(want, got))
	}
}

// What the kernel shows of real sockets is understood.
func TestListeningOnThisMachine(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", "[::]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		port := spec.Publish{HostPort: uint16(l.Addr().(*net.TCPAddr).Port), Protocol: "tcp"}
		if got, err := listening("/proc"); err != nil || !got[port] {
			t.Errorf("a listener on %s is not seen: %v", address, err)
		}
		l.Close()
		if got, err := listening("/proc"); err != nil || got[port] {
			t.Errorf("a listener that ended is seen: %v", err)
		}
	}
}

func TestTakenPortsAreTold(t *testing.T) {
	vpcs := []network.VPC{{Tenant: "acme", Endpoints: []network.Endpoint{
		{Name: "web", Publish: []spec.Publish{{HostPort: 8080, Port: 80, Protocol: "tcp"}, {HostPort: 8081, Port: 81, Protocol: "tcp"}}},
	}}}
	taken, err := takenOf(vpcs, map[spec.Publish]bool{{HostPort: 8081, Protocol: "tcp"}: true, {HostPort: 8080, Protocol: "udp"}: true})
	if len(taken) != 1 || taken[0].HostPort != 8081 || err == nil {
		t.Errorf("taken %v, %v; want 8081", taken, err)
	}
	if taken, err = takenOf(vpcs, nil); len(taken) != 0 || err != nil {
		t.Errorf("without listeners: %v, %v", taken, err)
	}
}
