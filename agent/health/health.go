// Package health holds every check of `gpuhost doctor`: what a healthy host has,
// how to see that this one has it, and the command that mends it where it does
// not. Checks change nothing.
package health

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// State is how a check ended.
type State string

// The outcomes.
const (
	Pass State = "pass"
	Warn State = "warn"
	Fail State = "fail"
)

// Result is one check's answer. Hint is the command that mends it.
type Result struct {
	Name    string
	State   State
	Message string
	Hint    string
}

// Facts are what the checks look at. Paths are given so that tests can point
// elsewhere.
type Facts struct {
	CgroupMount string // "/sys/fs/cgroup"
	RuntimeDir  string // folder of containerd, its shim and runc
	Lib         string // the folder whose disk must not fill up
	Sim         bool   // a development machine: what it lacks is a warning
	// Parts says of each process beside the agent what keeps it from working.
	Parts func(context.Context) map[string]error
	// Problems says what the agent itself fails at now.
	Problems func() map[string]error
	// Protected are the operator's networks that the settings name.
	Protected []netip.Prefix
	// ForeignDrops lists others' chains that drop by policy on the tenants' way.
	ForeignDrops func(context.Context) ([]string, error)
}

// check is one line of doctor.
type check struct {
	name string
	run  func(context.Context, Facts) Result
}

func checks() []check {
	return []check{
		{"kernel", checkKernel},
		{"cgroup", checkCgroup},
		{"controllers", checkControllers},
		{"user-namespaces", checkUserNamespaces},
		{"seccomp", checkSeccomp},
		{"limits", checkLimits},
		{"runtime", checkRuntime},
		{"parts", checkParts},
		{"convergence", checkConvergence},
		{"foreign-rules", checkForeignRules},
		{"protected-networks", checkProtected},
		{"disk", checkDisk},
		{"driver", checkDriver},
	}
}

// Names lists the checks.
func Names() []string {
	var out []string
	for _, c := range checks() {
		out = append(out, c.name)
	}
	return out
}

// Run runs the checks named in only, or all. An unknown name is invalid.
func Run(ctx context.Context, f Facts, only []string) ([]Result, error) {
	for _, name := range only {
		if !slices.Contains(Names(), name) {
			return nil, fault.New(fault.Invalid, "run check "+name, "there is none of this name").
				WithHint("known are: %s", strings.Join(Names(), ", "))
		}
	}
	var out []Result
	for _, c := range checks() {
		if len(only) > 0 && !slices.Contains(only, c.name) {
			continue
		}
		r := c.run(ctx, f)
		r.Name = c.name
		out = append(out, r)
	}
	return out, nil
}

func pass(format string, args ...any) Result {
	return Result{State: Pass, Message: fmt.Sprintf(format, args...)}
}

func fail(hint, format string, args ...any) Result {
	return Result{State: Fail, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// lenient turns a failure into a warning on a development machine.
func (f Facts) lenient(r Result) Result {
	if f.Sim && r.State == Fail {
		r.State = Warn
	}
	return r
}

// Kernel floor; docs/architecture.md says what each version lacks.
const (
	floorMajor, floorMinor = 5, 15
	goodMajor, goodMinor   = 5, 19 // idmapped overlayfs
)

func checkKernel(context.Context, Facts) Result {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return fail("", "uname: %v", err)
	}
	return judgeKernel(unix.ByteSliceToString(name.Release[:]))
}

func judgeKernel(release string) Result {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return fail("", "release %q is not understood", release)
	}
	older := func(m, n int) bool { return major < m || major == m && minor < n }
	switch {
	case older(floorMajor, floorMinor):
		return fail("install a newer kernel of your distribution", "Linux %s is older than %d.%d", release, floorMajor, floorMinor)
	case older(goodMajor, goodMinor):
		return Result{State: Warn, Message: fmt.Sprintf("Linux %s has no idmapped overlayfs: disks are copied to the tenant's ids at start", release),
			Hint: "install the distribution's newer (HWE) kernel"}
	}
	return pass("Linux %s", release)
}

func checkCgroup(_ context.Context, f Facts) Result {
	var s unix.Statfs_t
	if err := unix.Statfs(f.CgroupMount, &s); err != nil {
		return fail("mount -t cgroup2 cgroup2 "+f.CgroupMount, "%s: %v", f.CgroupMount, err)
	}
	if s.Type != unix.CGROUP2_SUPER_MAGIC {
		return fail("boot with systemd.unified_cgroup_hierarchy=1", "%s is not cgroup v2", f.CgroupMount)
	}
	return pass("cgroup v2 at %s", f.CgroupMount)
}

// wanted are the controllers that limits need.
func wanted() []string { return []string{"cpu", "cpuset", "io", "memory", "pids"} }

func checkControllers(_ context.Context, f Facts) Result {
	text, err := os.ReadFile(filepath.Join(f.CgroupMount, "cgroup.controllers"))
	if err != nil {
		return fail("", "%v", err)
	}
	return f.lenient(judgeControllers(string(text)))
}

func judgeControllers(text string) Result {
	there := strings.Fields(text)
	var missing []string
	for _, c := range wanted() {
		if !slices.Contains(there, c) {
			missing = append(missing, c)
		}
	}
	if len(missing) > 0 {
		return fail("enable them for cgroup v2: cgroup_no_v1=all on the kernel's command line",
			"controllers %s are missing: their limits are left out", strings.Join(missing, ", "))
	}
	return pass("%s", strings.Join(there, " "))
}

func checkUserNamespaces(context.Context, Facts) Result {
	text, err := os.ReadFile("/proc/sys/user/max_user_namespaces")
	if err != nil {
		return fail("use a kernel with CONFIG_USER_NS", "%v", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || n == 0 {
		return fail("sysctl user.max_user_namespaces=65536", "user namespaces are switched off")
	}
	return pass("up to %d", n)
}

func checkSeccomp(context.Context, Facts) Result {
	text, err := os.ReadFile("/proc/sys/kernel/seccomp/actions_avail")
	if err != nil || !strings.Contains(string(text), "errno") {
		return fail("use a kernel with CONFIG_SECCOMP_FILTER", "seccomp filters are not available")
	}
	return pass("filters are available")
}

func checkRuntime(_ context.Context, f Facts) Result {
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "runc"} {
		path := filepath.Join(f.RuntimeDir, name)
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return fail("install the package gpuhost-runtime, or make runtime and set runtime.dir", "%s is not there", path)
		case err != nil:
			return fail("", "%v", err)
		case info.Mode()&0o111 == 0:
			return fail("chmod 755 "+path, "%s may not be executed", path)
		case info.Mode()&0o022 != 0:
			return fail("chmod go-w "+path, "%s may be written by others than root", path)
		}
	}
	return pass("containerd, its shim and runc in %s", f.RuntimeDir)
}

// seeLog is the hint where the error is all that is known.
const seeLog = "look into the agent's log, where systemd runs it: journalctl -u gpuhost -n 50"

func checkParts(ctx context.Context, f Facts) Result {
	parts := f.Parts(ctx)
	var bad, good []string
	for name, err := range parts {
		if err != nil {
			bad = append(bad, fmt.Sprintf("%s: %v", name, err))
		} else {
			good = append(good, name)
		}
	}
	slices.Sort(bad)
	slices.Sort(good)
	if len(bad) > 0 {
		return fail(seeLog, "%s", strings.Join(bad, "; "))
	}
	return pass("%s", strings.Join(good, ", "))
}

// checkConvergence tells of lanes that fail and tasks that do not work.
func checkConvergence(_ context.Context, f Facts) Result {
	found := f.Problems()
	if len(found) == 0 {
		return pass("all that is wanted is in force")
	}
	hint, texts := seeLog, make([]string, 0, len(found))
	for _, name := range slices.Sorted(maps.Keys(found)) {
		texts = append(texts, fmt.Sprintf("%s: %v", name, found[name]))
		if known := fault.HintOf(found[name]); known != "" {
			hint = known
		}
	}
	return fail(hint, "%s", strings.Join(texts, "; "))
}

// checkForeignRules finds another manager's drop on our path: docker, for one,
// leaves the policy of FORWARD at drop, and no accept of ours can override it.
func checkForeignRules(ctx context.Context, f Facts) Result {
	chains, err := f.ForeignDrops(ctx)
	if err != nil {
		return fail("", "%v", err)
	}
	if len(chains) == 0 {
		return pass("nobody else drops tenants' packets by policy")
	}
	return Result{
		State:   Warn,
		Message: "these chains drop what they do not know, tenants' packets too: " + strings.Join(chains, ", "),
		Hint:    "let tenants' links pass there: nft insert rule " + chains[0] + ` iifname "gt-*" accept; the same with oifname`,
	}
}

// checkProtected warns where tenants reach what surrounds the host: only the
// host's own addresses are protected without being named.
func checkProtected(_ context.Context, f Facts) Result {
	if len(f.Protected) == 0 {
		return Result{
			State:   Warn,
			Message: "network.protected is empty: tenants may open connections to every other machine that this host reaches",
			Hint:    "name your management and storage networks in /etc/gpuhost/gpuhost.toml: [network] protected = [\"10.0.0.0/8\"]",
		}
	}
	return pass("tenants open no connections to %d of your networks", len(f.Protected))
}

// Disk marks, in percent of bytes or inodes used.
const (
	diskWarn = 85
	diskFail = 97
)

func checkDisk(_ context.Context, f Facts) Result {
	var s unix.Statfs_t
	if err := unix.Statfs(f.Lib, &s); err != nil {
		return fail("", "%s: %v", f.Lib, err)
	}
	used := percent(s.Blocks-s.Bfree, s.Blocks-s.Bfree+s.Bavail)
	inodes := percent(s.Files-s.Ffree, s.Files)
	return judgeDisk(f.Lib, used, inodes, spec.Bytes(int64(s.Bavail)*s.Bsize))
}

func percent(part, whole uint64) int {
	if whole == 0 {
		return 0
	}
	return int(part * 100 / whole)
}

func judgeDisk(path string, used, inodes int, free spec.Bytes) Result {
	text := fmt.Sprintf("%s: %d %% of bytes and %d %% of inodes used, %s free", path, used, inodes, free.About())
	switch worst := max(used, inodes); {
	case worst >= diskFail:
		return Result{State: Fail, Message: text, Hint: "gpuhost image prune"}
	case worst >= diskWarn:
		return Result{State: Warn, Message: text, Hint: "gpuhost image prune"}
	}
	return Result{State: Pass, Message: text}
}

func checkDriver(_ context.Context, f Facts) Result {
	if f.Sim {
		return Result{State: Warn, Message: "the GPUs are simulated", Hint: "start the agent without --sim on a host with GPUs"}
	}
	text, err := os.ReadFile("/sys/module/nvidia/version")
	if err != nil {
		return fail("install an NVIDIA driver (gpuhost driver install is not built yet)", "no NVIDIA driver is loaded")
	}
	return pass("NVIDIA driver %s", strings.TrimSpace(string(text)))
}
