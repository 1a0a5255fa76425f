package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/spec"
)

// read collects the facts of a task. Each that cannot be read carries why.
func (a *Auditor) read(ctx context.Context, want Want, pid int) Facts {
	uid := want.Lease.UID
	proc := procDir(pid)
	f := Facts{
		PID:       pid,
		Host:      fact(hostNamespaces()),
		Peers:     fact(a.readPeers(ctx, uid)),
		Processes: a.readProcesses(ctx, uid),
		NetOwner:  fact(networkOwner(pid)),
		UIDMap:    fact(readIDMap(filepath.Join(proc, "uid_map"))),
		GIDMap:    fact(readIDMap(filepath.Join(proc, "gid_map"))),
		RootOwner: fact(rootOwner(pid)),
		Mounts:    fact(readMounts(pid)),
		Outer:     fact(a.config.Cgroups.Outer(ctx, uid)),
		Effective: fact(a.config.Cgroups.Effective(ctx, uid)),
		Limits:    a.readLimits(uid),
	}
	a.readRoot(&f, pid)
	f.Tries = fact(a.tryNodes(ctx, want))
	f.Strangers = fact(a.tryAsTenant(ctx, want))
	return f
}

func procDir(pid int) string { return "/proc/" + strconv.Itoa(pid) }

// readProcesses reads every process of the task. One that ends meanwhile holds
// nothing; the list is of those that were still there.
func (a *Auditor) readProcesses(ctx context.Context, uid spec.UID) Fact[[]Process] {
	pids, err := a.config.Cgroups.Pids(ctx, uid)
	if err != nil {
		return Fact[[]Process]{Err: err}
	}
	var all []Process
	for _, pid := range pids {
		p, err := readProcess(pid)
		if ended(err) {
			continue
		}
		if err != nil {
			return Fact[[]Process]{Err: err}
		}
		all = append(all, p)
	}
	return Fact[[]Process]{Value: all}
}

func ended(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}

func readProcess(pid int) (Process, error) {
	text, err := os.ReadFile(procDir(pid) + "/status")
	if err != nil {
		return Process{}, fmt.Errorf("read status of process %d: %w", pid, err)
	}
	p, err := parseStatus(string(text))
	if err != nil {
		return Process{}, fmt.Errorf("process %d: %w", pid, err)
	}
	p.PID = pid
	p.Namespaces, err = readNamespaces(pid)
	return p, err
}

func readNamespaces(pid int) (Namespaces, error) {
	ns := Namespaces{}
	for _, kind := range namespaceKinds() {
		link, err := os.Readlink(procDir(pid) + "/ns/" + kind)
		if err != nil {
			return nil, fmt.Errorf("read %s namespace of process %d: %w", kind, pid, err)
		}
		ns[kind] = link
	}
	return ns, nil
}

// hostNamespaces are those of process 1. The agent's own differ at most in what
// its unit makes private.
func hostNamespaces() (Namespaces, error) { return readNamespaces(1) }

// readPeers reads the namespaces of one process of every other instance.
func (a *Auditor) readPeers(ctx context.Context, self spec.UID) (map[spec.UID]Namespaces, error) {
	uids, err := a.config.Cgroups.List(ctx)
	if err != nil {
		return nil, err
	}
	peers := map[spec.UID]Namespaces{}
	for _, uid := range uids {
		if uid == self {
			continue
		}
		pids, err := a.config.Cgroups.Pids(ctx, uid)
		if err != nil {
			return nil, err
		}
		if ns, err := firstNamespaces(pids); err != nil {
			return nil, err
		} else if ns != nil {
			peers[uid] = ns
		}
	}
	return peers, nil
}

func firstNamespaces(pids []int) (Namespaces, error) {
	for _, pid := range pids {
		ns, err := readNamespaces(pid)
		if err == nil || !ended(err) {
			return ns, err
		}
	}
	return nil, nil
}

// networkOwner names the user namespace that owns the task's network namespace,
// in the form of a namespace link.
func networkOwner(pid int) (string, error) {
	file, err := os.Open(procDir(pid) + "/ns/net")
	if err != nil {
		return "", fmt.Errorf("open network namespace: %w", err)
	}
	defer file.Close()
	fd, err := unix.IoctlRetInt(int(file.Fd()), unix.NS_GET_USERNS)
	if err != nil {
		return "", fmt.Errorf("ask for the owner of the network namespace: %w", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", fmt.Errorf("stat the owner of the network namespace: %w", err)
	}
	return fmt.Sprintf("user:[%d]", st.Ino), nil
}

func readIDMap(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read id map: %w", err)
	}
	return parseIDMap(string(text))
}

// readMounts takes mountinfo of the task's thread: what it can reach, in its
// own paths.
func readMounts(pid int) ([]Mount, error) {
	file, err := os.Open(procDir(pid) + "/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	defer file.Close()
	return parseMounts(file)
}

// limitFiles are the files of the leaf cgroup that limits are read back from.
func limitFiles() []string {
	return []string{"cpu.max", "cpu.weight", "cpuset.cpus", "memory.max", "memory.swap.max", "memory.oom.group", "pids.max"}
}

func (a *Auditor) readLimits(uid spec.UID) map[string]Fact[string] {
	leaf := filepath.Join(a.config.Paths.CgroupMount, a.config.Paths.TaskCgroup(uid))
	limits := map[string]Fact[string]{}
	for _, name := range limitFiles() {
		text, err := os.ReadFile(filepath.Join(leaf, name))
		if !errors.Is(err, fs.ErrNotExist) {
			limits[name] = fact(string(text), err)
		}
	}
	return limits
}
