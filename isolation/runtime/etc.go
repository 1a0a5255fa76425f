package runtime

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
)

// startedFile marks in an instance's folder that its task was let run. When
// containerd then knows no task, one has ended unseen; without the mark none
// was ever there. It lies outside what the container sees.
const startedFile = ".started"

// writeEtc writes hosts, hostname and resolv.conf. They are world-readable,
// because the tenant's root is nobody to the host.
func (c *Client) writeEtc(lease isolation.Lease) error {
	dir := c.config.Paths.EtcDir(lease.UID)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	for name, text := range etcFiles(lease) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func etcFiles(lease isolation.Lease) map[string]string {
	resolv := ""
	if lease.Nameserver != "" {
		resolv = "nameserver " + lease.Nameserver + "\n"
	}
	return map[string]string{
		"hostname":    lease.Name + "\n",
		"hosts":       fmt.Sprintf("127.0.0.1\tlocalhost\n127.0.1.1\t%s\n::1\tlocalhost ip6-localhost ip6-loopback\n", lease.Name),
		"resolv.conf": resolv,
	}
}

func (c *Client) startedPath(uid spec.UID) string {
	return filepath.Join(c.config.Paths.EtcDir(uid), startedFile)
}

func (c *Client) wasStarted(uid spec.UID) bool {
	_, err := os.Stat(c.startedPath(uid))
	return err == nil
}
