package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/config"
)

// gpuMajor is the major number of every NVIDIA node but nvidia-uvm, which is
// given one at run time and whose simulation has uvmMajor.
const gpuMajor = 195

// kernel is one host as the kernel and containerd's files show it, read without
// asking the agent.
type kernel struct {
	shims   map[string][]int // uid of the instance → shims
	tasks   map[string][]int // → first processes of its container
	runc    map[string]bool  // runc has a state file
	logs    map[string]int   // → warden log processes
	execs   int              // warden exec processes
	minors  map[string][]int // → minors of its /dev/nvidiaN
	pins    map[string]uint64
	vpcs    []string
	cgroups []string
	links   map[string][]string // VPC → links of its router namespace
	holders []string            // processes with a GPU open
}

// look reads the kernel.
func (h *host) look() (kernel, error) {
	k := kernel{
		shims: map[string][]int{}, tasks: map[string][]int{}, runc: map[string]bool{}, logs: map[string]int{},
		minors: map[string][]int{}, pins: map[string]uint64{}, links: map[string][]string{},
	}
	return k, errors.Join(k.readProcesses(h), k.readDevices(), k.readNetns(h), k.readCgroups(h), k.readRunc(h))
}

var (
	shimLine = regexp.MustCompile(`containerd-shim-runc-v2 -namespace (\S+) -id (\S+) `)
	logLine  = regexp.MustCompile(`warden log --pipes \S+/io/(\S+) `)
)

// readProcesses finds shims, tasks and wardens by their command lines and
// parents, and whoever has a GPU open.
func (k *kernel) readProcesses(h *host) error {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return err
		}
		raw, err := os.ReadFile(dir + "/cmdline")
		if err != nil {
			continue // ended while we read
		}
		line := strings.ReplaceAll(string(raw), "\x00", " ")
		if m := shimLine.FindStringSubmatch(line); m != nil && strings.HasPrefix(m[1], h.id+"-") {
			k.shims[m[2]] = append(k.shims[m[2]], pid)
			k.tasks[m[2]] = append(k.tasks[m[2]], firstProcesses(pid)...)
		}
		if m := logLine.FindStringSubmatch(line); m != nil && strings.Contains(line, h.root) {
			k.logs[m[1]]++
		}
		if strings.Contains(line, "warden exec ") && strings.Contains(line, h.root) {
			k.execs++
		}
		k.holders = append(k.holders, openGPUs(dir)...)
	}
	return nil
}

// firstProcesses are a shim's children that are process 1 of a namespace.
func firstProcesses(shim int) []int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", shim, shim))
	if err != nil {
		return nil // the shim ended
	}
	var first []int
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", shim))
	for _, thread := range threads {
		if more, err := os.ReadFile(thread); err == nil {
			text = append(append(text, ' '), more...)
		}
	}
	for _, field := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(field)
		if err != nil || slices.Contains(first, pid) {
			continue
		}
		if status, err := os.ReadFile("/proc/" + field + "/status"); err == nil && isFirst(string(status)) {
			first = append(first, pid)
		}
	}
	return first
}

// isFirst says whether a process is number 1 of its own process namespace and
// has not ended.
func isFirst(status string) bool {
	var inner, state string
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		fields := strings.Fields(value)
		switch {
		case key == "NSpid" && len(fields) > 1:
			inner = fields[len(fields)-1]
		case key == "State" && len(fields) > 0:
			state = fields[0]
		}
	}
	return inner == "1" && state != "Z"
}

// openGPUs lists the descriptors of one process that are a GPU's node.
func openGPUs(dir string) []string {
	fds, err := os.ReadDir(dir + "/fd")
	if err != nil {
		return nil // ended while we read
	}
	var open []string
	for _, fd := range fds {
		var st unix.Stat_t
		path := dir + "/fd/" + fd.Name()
		if unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && unix.Major(st.Rdev) == gpuMajor {
			open = append(open, path)
		}
	}
	return open
}

// readDevices reads which GPUs' nodes each task sees.
func (k *kernel) readDevices() error {
	for uid, pids := range k.tasks {
		for _, pid := range pids {
			nodes, err := filepath.Glob(fmt.Sprintf("/proc/%d/root/dev/nvidia[0-9]*", pid))
			if err != nil {
				return err
			}
			for _, node := range nodes {
				var st unix.Stat_t
				if err := unix.Stat(node, &st); err != nil {
					return fmt.Errorf("stat %s: %w", node, err)
				}
				if unix.Major(st.Rdev) != gpuMajor || filepath.Base(node) != fmt.Sprintf("nvidia%d", unix.Minor(st.Rdev)) {
					return fmt.Errorf("%s is device %d:%d", node, unix.Major(st.Rdev), unix.Minor(st.Rdev))
				}
				k.minors[uid] = append(k.minors[uid], int(unix.Minor(st.Rdev)))
			}
			slices.Sort(k.minors[uid])
		}
	}
	return nil
}

// readNetns reads the pinned namespaces, and the links in those of VPCs.
func (k *kernel) readNetns(h *host) error {
	dir := filepath.Join(config.PathsBelow(h.root).Run, "netns")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return fmt.Errorf("stat %s: %w", path, err)
		}
		vpc, isVPC := strings.CutPrefix(entry.Name(), "vpc-")
		if !isVPC {
			k.pins[entry.Name()] = st.Ino
			continue
		}
		k.vpcs = append(k.vpcs, vpc)
		out, err := exec.Command("nsenter", "--net="+path, "ip", "-br", "link").Output()
		if err != nil {
			return fmt.Errorf("list links of %s: %w", path, err)
		}
		for line := range strings.Lines(string(out)) {
			name, _, _ := strings.Cut(strings.Fields(line)[0], "@")
			k.links[vpc] = append(k.links[vpc], name)
		}
	}
	return nil
}

// readCgroups reads the first level of the agent's own tree.
func (k *kernel) readCgroups(h *host) error {
	entries, err := os.ReadDir("/sys/fs/cgroup/gpuhost-" + h.id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, entry := range entries {
		if entry.IsDir() {
			k.cgroups = append(k.cgroups, entry.Name())
		}
	}
	return err
}

// readRunc reads which containers runc has a state of.
func (k *kernel) readRunc(h *host) error {
	states, err := filepath.Glob(filepath.Join(config.PathsBelow(h.root).Run, "containerd/runc/*/*/state.json"))
	for _, state := range states {
		k.runc[filepath.Base(filepath.Dir(state))] = true
	}
	return err
}

// expectation is what must be of an instance: its GPUs while it runs, -1 where
// it must not run.
type expectation map[string]int

const notRunning = -1

// check holds the invariants of a host against what it should run. It says
// everything that is wrong.
func (h *host) check(want expectation) error {
	k, err := h.look()
	if err != nil {
		return err
	}
	var running []string
	var errs []error
	for uid, gpus := range want {
		if gpus == notRunning {
			continue
		}
		running = append(running, uid)
		errs = append(errs, k.checkRunning(h, uid, gpus))
	}
	slices.Sort(running)
	errs = append(errs,
		same("instances with a shim", slices.Sorted(maps.Keys(k.shims)), running),
		same("containers of runc", slices.Sorted(maps.Keys(k.runc)), running),
		same("instances with a log writer", slices.Sorted(maps.Keys(k.logs)), running),
		same("pinned namespaces", slices.Sorted(maps.Keys(k.pins)), running),
		same("links of instances", k.instanceLinks(), running),
		same("processes with a GPU open", k.holders, nil),
		k.checkCgroups(want, running), k.checkDisjoint(), k.checkExecs(),
	)
	return errors.Join(errs...)
}

func same(what string, have, want []string) error {
	if !slices.Equal(have, want) {
		return fmt.Errorf("%s: %v, want %v", what, have, want)
	}
	return nil
}

func (k *kernel) checkExecs() error {
	if k.execs > 0 {
		return fmt.Errorf("%d exec relays are left", k.execs)
	}
	return nil
}

func (k *kernel) checkRunning(h *host, uid string, gpus int) error {
	if len(k.shims[uid]) != 1 || len(k.tasks[uid]) != 1 || k.logs[uid] != 1 {
		return fmt.Errorf("instance %s: shims %v, tasks %v, log writers %d, want one each", uid, k.shims[uid], k.tasks[uid], k.logs[uid])
	}
	if len(k.minors[uid]) != gpus {
		return fmt.Errorf("instance %s sees GPUs %v, want %d", uid, k.minors[uid], gpus)
	}
	pid := k.tasks[uid][0]
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &st); err != nil {
		return err
	}
	if st.Ino != k.pins[uid] {
		return fmt.Errorf("instance %s: its pin is not its network namespace", uid)
	}
	return errors.Join(h.checkCgroupOf(uid, pid), h.checkProgram(uid, k.minors[uid]))
}

// checkCgroupOf says whether a task sits in the leaf it belongs in.
func (h *host) checkCgroupOf(uid string, pid int) error {
	text, err := os.ReadFile(fmt.Sprintf("/sys/fs/cgroup/gpuhost-%s/%s/task/cgroup.procs", h.id, uid))
	if err != nil {
		return err
	}
	if !slices.Contains(strings.Fields(string(text)), strconv.Itoa(pid)) {
		return fmt.Errorf("instance %s: process %d is not in its cgroup, which has %q", uid, pid, text)
	}
	return nil
}

// checkProgram asks the kernel, as host root inside the instance's cgroup, which
// GPUs may be opened: a refusal is EPERM; what may be opened has no driver here.
func (h *host) checkProgram(uid string, minors []int) error {
	// Beside the task's own leaf: the audit looks at every process in that.
	probe := fmt.Sprintf("/sys/fs/cgroup/gpuhost-%s/%s/probe", h.id, uid)
	if err := os.Mkdir(probe, 0o755); err != nil {
		return err
	}
	defer os.Remove(probe)
	dir, err := os.Open(probe)
	if err != nil {
		return err
	}
	defer dir.Close()
	cmd := exec.Command("sh", "-c", `for n in 0 1 2 3 4 5 6 7; do (: <`+h.nodes()+`/$n) 2>&1; done`)
	cmd.Env = []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	out, _ := cmd.CombinedOutput() // the last one may be a refusal
	var open []int
	for n, line := range bytes.Split(bytes.TrimSpace(out), []byte("\n")) {
		if !bytes.Contains(line, []byte("not permitted")) {
			open = append(open, n)
		}
	}
	if !slices.Equal(open, minors) {
		return fmt.Errorf("instance %s may open GPUs %v and sees %v: %s", uid, open, minors, out)
	}
	return nil
}

// nodes is a folder with a node of each GPU.
func (h *host) nodes() string { return filepath.Join(h.root, "probe") }

// makeNodes makes the nodes that checkProgram tries to open.
func (h *host) makeNodes() {
	h.t.Helper()
	if err := os.Mkdir(h.nodes(), 0o700); err != nil {
		h.t.Fatal(err)
	}
	for n := range 8 {
		if err := unix.Mknod(filepath.Join(h.nodes(), strconv.Itoa(n)), unix.S_IFCHR|0o600, int(unix.Mkdev(gpuMajor, uint32(n)))); err != nil {
			h.t.Fatal(err)
		}
	}
}

func (k *kernel) checkDisjoint() error {
	owner := map[int]string{}
	for uid, minors := range k.minors {
		for _, minor := range minors {
			if other, taken := owner[minor]; taken {
				return fmt.Errorf("GPU %d is in %s and in %s", minor, uid, other)
			}
			owner[minor] = uid
		}
	}
	return nil
}

// checkCgroups: a running instance has its cgroup; one that is stored and does
// not run may keep it, empty; nothing else is there.
func (k *kernel) checkCgroups(want expectation, running []string) error {
	var errs []error
	for _, uid := range running {
		if !slices.Contains(k.cgroups, uid) {
			errs = append(errs, fmt.Errorf("instance %s has no cgroup", uid))
		}
	}
	for _, name := range k.cgroups {
		if _, known := want[name]; !known && name != "services" && name != "wardens" {
			errs = append(errs, fmt.Errorf("cgroup %s belongs to nobody", name))
		}
	}
	return errors.Join(errs...)
}

// instanceLinks are the instances whose link is in a router namespace.
func (k *kernel) instanceLinks() []string {
	var uids []string
	for _, names := range k.links {
		for _, name := range names {
			if uid, ok := strings.CutPrefix(name, "i-"); ok {
				uids = append(uids, uid)
			}
		}
	}
	slices.Sort(uids)
	return uids
}
