package isolation

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Fingerprint stands for the parts of a lease that a container is made from,
// each with a short hash of its value, so that a difference can be named
// without keeping the value. What is not in it changes without a new container.
//
// Containers outlive the agent that made them, so the hashed text is spelled
// out here and pinned by a test: were it to change with a release, the new
// agent would restart every tenant. An empty part is left out, so that a part
// added later does not differ on instances that do not use it.
type Fingerprint map[string]string

const partImage = "image"

// FingerprintOf hashes the container-relevant parts of a lease.
func FingerprintOf(l Lease) Fingerprint {
	f := Fingerprint{}
	for name, text := range map[string]string{
		partImage:    l.Image,
		"name":       l.Name,
		"ids":        fmt.Sprintf("%d+%d", l.IDs.Start, l.IDs.Size),
		"command":    quoted(l.Command),
		"env":        envText(l),
		"user":       l.User,
		"limits":     limitsText(l.Limits),
		"gpus":       gpusText(l.GPUs),
		"nameserver": l.Nameserver,
		"restart":    l.RestartToken,
	} {
		if text != "" {
			f[name] = shortHash(text)
		}
	}
	return f
}

// Differs names the parts that are not the same in f and other, sorted.
func (f Fingerprint) Differs(other Fingerprint) []string {
	all := Fingerprint{}
	maps.Copy(all, f)
	maps.Copy(all, other)
	var out []string
	for name := range all {
		if f[name] != other[name] {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// Image is the part that stands for the image, which the disk depends on too.
func (f Fingerprint) Image() string { return f[partImage] }

func envText(l Lease) string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(l.Env)) {
		fmt.Fprintf(&b, "%q=%q,%q;", key, l.Env[key].Value, l.Env[key].Secret)
	}
	return b.String()
}

func limitsText(l Limits) string {
	return fmt.Sprintf("%d %d %d %d %s", int64(l.CPU), int64(l.Memory), l.Pids, int64(l.Shm), l.CPUSet)
}

func gpusText(devices []Device) string {
	var b strings.Builder
	for _, d := range devices {
		fmt.Fprintf(&b, "%s:%d;", d.UUID, d.Minor)
	}
	return b.String()
}

func quoted(list []string) string {
	var b strings.Builder
	for _, s := range list {
		fmt.Fprintf(&b, "%q ", s)
	}
	return b.String()
}

// shortHash is 48 bits of SHA-256: enough to notice a change, short enough for
// a containerd label (4,096 bytes with its key).
func shortHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:6])
}
