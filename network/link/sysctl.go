package link

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Sysctl is one switch below /proc/sys/net and its value: {"ipv4/ip_forward", "1"}.
type Sysctl struct{ Name, Value string }

const sysctlRoot = "/proc/sys/net"

// Set writes switches of the namespace that the calling thread is in. A switch
// that has its value already is not written; one the kernel does not have (IPv6
// left out) is skipped, because what it would forbid cannot happen then.
func Set(switches ...Sysctl) error {
	for _, s := range switches {
		path := filepath.Join(sysctlRoot, s.Name)
		have, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read switch %s: %w", s.Name, err)
		}
		if strings.TrimSpace(string(have)) == s.Value {
			continue
		}
		if err := os.WriteFile(path, []byte(s.Value), 0); err != nil {
			return fmt.Errorf("set switch %s to %s: %w", s.Name, s.Value, err)
		}
	}
	return nil
}

// Device is a switch of one interface.
func Device(family, device, name, value string) Sysctl {
	return Sysctl{filepath.Join(family, "conf", device, name), value}
}

// Get reads a switch of the namespace that the calling thread is in; "" when the
// kernel does not have it.
func Get(s Sysctl) (string, error) {
	have, err := os.ReadFile(filepath.Join(sysctlRoot, s.Name))
	if os.IsNotExist(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read switch %s: %w", s.Name, err)
	}
	return strings.TrimSpace(string(have)), nil
}
