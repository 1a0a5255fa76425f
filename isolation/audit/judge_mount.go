package audit

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/gpuhost/gpuhost/isolation"
)

// judgeSockets looks for mounts of the sockets that GPU daemons of the host
// listen on, and of any other socket by its usual suffix. The daemons name theirs
// by its folder (/run/nvidia-persistenced/socket), or share the folder.
func judgeSockets(_ Want, f Facts) finding {
	const expected = "no mount of persistenced, fabricmanager, MPS or any .sock"
	if f.Mounts.Err != nil {
		return unreadable(expected, f.Mounts.Err)
	}
	var problems []string
	for _, m := range f.Mounts.Value {
		if mountsSocket(m) {
			problems = append(problems, fmt.Sprintf("%s on %s", m.Root, m.Point))
		}
	}
	return conclude(expected, fmt.Sprintf("none among %d mounts", len(f.Mounts.Value)), problems)
}

func mountsSocket(m Mount) bool {
	for _, p := range []string{m.Root, m.Point} {
		if path.Ext(p) == ".sock" {
			return true
		}
		for _, daemon := range []string{"nvidia-persistenced", "nvidia-fabricmanager", "nvidia-mps", "containerd"} {
			if strings.Contains(p, daemon) { // in any element: no name has a slash
				return true
			}
		}
	}
	return false
}

func judgeDriverPaths(_ Want, f Facts) finding {
	return judgeHidden("masked or absent", f.Masked, driverPaths(), StateMasked)
}

func judgeKernelPaths(_ Want, f Facts) finding {
	masked := judgeHidden("masked or absent; /sys and switches below /proc read-only", f.Masked, kernelPaths(), StateMasked)
	readOnly := judgeHidden(masked.expected, f.ReadOnly, readOnlyPaths(), StateMasked, StateReadOnly)
	if !masked.pass || !readOnly.pass {
		return finding{masked.expected, masked.found + "; " + readOnly.found, false}
	}
	return finding{masked.expected, masked.found + "; read-only: " + readOnly.found, true}
}

// judgeHidden wants every path absent or in one of the states.
func judgeHidden(expected string, have Fact[[]Hidden], paths []string, states ...string) finding {
	if have.Err != nil {
		return unreadable(expected, have.Err)
	}
	var problems []string
	absent := 0
	for _, p := range paths {
		i := slices.IndexFunc(have.Value, func(h Hidden) bool { return h.Path == p })
		switch {
		case i < 0:
			problems = append(problems, p+" was not looked at")
		case have.Value[i].State == StateAbsent:
			absent++
		case !slices.Contains(states, have.Value[i].State):
			problems = append(problems, p+" is "+have.Value[i].State)
		}
	}
	return conclude(expected, fmt.Sprintf("%d so, %d absent", len(paths)-absent, absent), problems)
}

// defaultShm is what a lease without a size gets.
const defaultShm = 64 << 20

func judgeShm(want Want, f Facts) finding {
	size := int64(want.Lease.Limits.Shm)
	if size <= 0 {
		size = defaultShm
	}
	page := int64(want.PageSize)
	size = (size + page - 1) / page * page
	expected := fmt.Sprintf("tmpfs of its own, %d bytes, nodev,noexec,nosuid", size)
	if f.Shm.Err != nil {
		return unreadable(expected, f.Shm.Err)
	}
	s := f.Shm.Value
	found := fmt.Sprintf("%d bytes, %s, tmpfs: %v, of its own: %v", s.Bytes, strings.Join(s.Options, ","), s.Tmpfs, s.OwnRoot)
	pass := s.Tmpfs && s.OwnRoot && s.Bytes == size && slices.Equal(s.Options, []string{"nodev", "noexec", "nosuid"})
	return finding{expected, found, pass}
}

// judgeMounts wants nosuid,nodev on every mount. The exceptions are written here
// and in docs/isolation.md, and nowhere else:
//
//   - granted nodes: nosuid,noexec, because nodev would make them useless
//   - runc's binds of the standard nodes, which carry the flags of the host's /dev
//   - devpts, which is nothing but device nodes: nosuid,noexec
//   - masks over files (a bind of /dev/null) and folders (an empty read-only tmpfs)
func judgeMounts(want Want, f Facts) finding {
	const expected = "nosuid,nodev on every mount but the listed exceptions"
	if f.Mounts.Err != nil {
		return unreadable(expected, f.Mounts.Err)
	}
	if len(f.Mounts.Value) == 0 {
		return finding{expected, "no mount is seen", false}
	}
	var problems []string
	excepted := 0
	for _, m := range f.Mounts.Value {
		switch {
		case m.has("nosuid", "nodev"):
		case exceptedMount(want, m):
			excepted++
		default:
			problems = append(problems, fmt.Sprintf("%s (%s) is %s", m.Point, m.Type, strings.Join(m.Options, ",")))
		}
	}
	return conclude(expected, fmt.Sprintf("%d mounts, %d of them exceptions", len(f.Mounts.Value), excepted), problems)
}

func (m Mount) has(options ...string) bool {
	for _, o := range options {
		if !slices.Contains(m.Options, o) {
			return false
		}
	}
	return true
}

func exceptedMount(want Want, m Mount) bool {
	if _, standard := standardDevices()[m.Point]; standard {
		return path.Base(m.Root) == path.Base(m.Point)
	}
	if slices.ContainsFunc(want.Nodes, func(n isolation.Node) bool { return m.Point == "/dev/"+n.Name }) {
		return m.has("nosuid", "noexec")
	}
	switch {
	case m.Point == "/dev/pts", m.Point == "/dev/console":
		return m.Type == "devpts" && m.has("nosuid", "noexec")
	case path.Base(m.Root) == "null":
		return isMask(m.Point)
	case m.Type == "tmpfs":
		return isMask(m.Point) && m.has("ro")
	}
	return false
}

// isMask says whether a mount point is one that runc puts a mask over. All of
// those lie where no image can put a file.
func isMask(point string) bool {
	return strings.HasPrefix(point, "/proc/") || strings.HasPrefix(point, "/sys/")
}

// judgeLimits compares the files of the leaf with the lease. Where the host lacks
// a controller there is no limit, which is said, and which doctor fails.
func judgeLimits(want Want, f Facts) finding {
	if want.Controllers.Err != nil {
		return unreadable("the lease's limits", want.Controllers.Err)
	}
	var expected, found, problems []string
	for _, l := range limits(want.Lease.Limits, int64(want.PageSize)) {
		expected = append(expected, l.file+" "+l.value)
		if !slices.Contains(want.Controllers.Value, l.controller) {
			found = append(found, "no "+l.controller+" controller on this host")
			continue
		}
		have, ok := f.Limits[l.file]
		text := strings.TrimSpace(have.Value)
		switch {
		case !ok:
			problems = append(problems, l.file+" is missing")
		case have.Err != nil:
			problems = append(problems, have.Err.Error())
		case text != l.value:
			problems = append(problems, l.file+" is "+text)
		default:
			found = append(found, l.file+" "+text)
		}
	}
	if len(expected) == 0 {
		return finding{"no limit", "no limit", true}
	}
	return conclude(strings.Join(expected, ", "), strings.Join(slices.Compact(found), ", "), problems)
}

type limit struct{ controller, file, value string }

// limits turns a lease's limits into what the files must say: memory in whole
// pages, of 64 KiB on some kernels.
func limits(l isolation.Limits, page int64) (all []limit) {
	const period = 100_000
	if l.CPU > 0 {
		quota := max(int64(l.CPU)*period/1000, 1000)
		all = append(all, limit{"cpu", "cpu.max", fmt.Sprintf("%d %d", quota, period)})
	}
	if l.CPUSet != "" {
		all = append(all, limit{"cpuset", "cpuset.cpus", l.CPUSet})
	}
	if l.Memory > 0 {
		all = append(all,
			limit{"memory", "memory.max", fmt.Sprint(int64(l.Memory) / page * page)},
			limit{"memory", "memory.swap.max", "0"},
			limit{"memory", "memory.oom.group", "1"})
	}
	if l.Pids > 0 {
		all = append(all, limit{"pids", "pids.max", fmt.Sprint(l.Pids)})
	}
	return all
}
