package audit

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// capSets are the five sets of /proc/PID/status.
func capSets() []string { return []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} }

// parseStatus reads the lines of /proc/PID/status that controls depend on. The
// kernel escapes newlines in the name, so no line is the tenant's; a key that
// comes twice is refused all the same.
func parseStatus(text string) (Thread, error) {
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		if !ok {
			continue
		}
		if _, twice := fields[key]; twice {
			return Thread{}, fmt.Errorf("read process status: %q is there twice", key)
		}
		fields[key] = strings.TrimSpace(value)
	}
	p := Thread{Name: fields["Name"], NoNewPrivs: fields["NoNewPrivs"], Seccomp: fields["Seccomp"], Caps: map[string]uint64{}}
	for _, set := range capSets() {
		mask, err := strconv.ParseUint(fields[set], 16, 64)
		if err != nil {
			return Thread{}, fmt.Errorf("read process status: %s is %q", set, fields[set])
		}
		p.Caps[set] = mask
	}
	pid, err := strconv.Atoi(fields["Tgid"])
	if err != nil {
		return Thread{}, fmt.Errorf("read process status: Tgid is %q", fields["Tgid"])
	}
	p.PID = pid
	return p, nil
}

// parseIDMap brings a uid_map or gid_map into one form: "0 1879048192 65536",
// several ranges joined with "; ".
func parseIDMap(text string) (string, error) {
	var ranges []string
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) != 3 {
			return "", fmt.Errorf("read id map: line %q has %d numbers", line, len(words))
		}
		for _, w := range words {
			if _, err := strconv.ParseUint(w, 10, 32); err != nil {
				return "", fmt.Errorf("read id map: %q is no id", w)
			}
		}
		ranges = append(ranges, strings.Join(words, " "))
	}
	return strings.Join(ranges, "; "), nil
}

// parseMounts reads mountinfo. Mount points are the tenant's choice only where it
// may mount, which it may not; they are compared as text all the same.
func parseMounts(r io.Reader) ([]Mount, error) {
	infos, err := mountinfo.GetMountsFromReader(r, nil)
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	mounts := make([]Mount, 0, len(infos))
	for _, m := range infos {
		options := strings.Split(m.Options, ",")
		slices.Sort(options)
		mounts = append(mounts, Mount{Point: m.Mountpoint, Root: m.Root, Type: m.FSType, Options: options})
	}
	return mounts, nil
}
