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
func (a *Auditor) read(ctx context.Context, want Want, tid int) Facts {
	uid := want.Lease.UID
	proc := procDir(tid)
	f := Facts{
		TID:       tid,
		Host:      fact(hostNamespaces()),
		Peers:     fact(a.readPeers(ctx, uid)),
		Threads:   a.readThreads(ctx, uid),
		NetOwner:  fact(networkOwner(tid)),
		UIDMap:    fact(readIDMap(filepath.Join(proc, "uid_map"))),
		GIDMap:    fact(readIDMap(filepath.Join(proc, "gid_map"))),
		RootOwner: fact(rootOwner(tid)),
		Mounts:    fact(readMounts(tid)),
		Outer:     fact(a.config.Cgroups.Outer(ctx, uid)),
		Effective: fact(a.config.Cgroups.Effective(ctx, uid)),
		Limits:    a.readLimits(uid),
	}
	a.readRoot(&f, tid)
	f.Tries = fact(a.try(ctx, want))
	return f
}

// procDir is the folder of a thread, which is as good as that of a process.
func procDir(tid int) string { return "/proc/" + strconv.Itoa(tid) }

// readThreads reads every thread of the task. One that ends meanwhile holds
// nothing; the list is of those that were still there.
func (a *Auditor) readThreads(ctx context.Context, uid spec.UID) Fact[[]Thread] {
	tids, err := a.config.Cgroups.Threads(ctx, uid)
	if err != nil {
		return Fact[[]Thread]{Err: err}
	}
	var all []Thread
	for _, tid := range tids {
		t, err := readThread(tid)
		if ended(err) {
			continue
		}
		if err != nil {
			return Fact[[]Thread]{Err: err}
		}
		all = append(all, t)
	}
	markLeaders(all)
	return Fact[[]Thread]{Value: all}
}

// markLeaders finds the thread that leads each process: the first, or another
// where that one has ended, which ends no process.
func markLeaders(threads []Thread) {
	leader := map[int]int{}
	for i, t := range threads {
		if _, found := leader[t.PID]; !found || t.TID == t.PID {
			leader[t.PID] = i
		}
	}
	for _, i := range leader {
		threads[i].Leads = true
	}
}

func ended(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}

func readThread(tid int) (Thread, error) {
	text, err := os.ReadFile(procDir(tid) + "/status")
	if err != nil {
		return Thread{}, fmt.Errorf("read status of thread %d: %w", tid, err)
	}
	t, err := parseStatus(string(text))
	if err != nil {
		return Thread{}, fmt.Errorf("thread %d: %w", tid, err)
	}
	t.TID = tid
	t.Namespaces, err = readNamespaces(tid)
	return t, err
}

func readNamespaces(tid int) (Namespaces, error) {
	ns := Namespaces{}
	for _, kind := range namespaceKinds() {
		link, err := os.Readlink(procDir(tid) + "/ns/" + kind)
		if err != nil {
			return nil, fmt.Errorf("read %s namespace of thread %d: %w", kind, tid, err)
		}
		ns[kind] = link
	}
	return ns, nil
}

// hostNamespaces are those of process 1. The agent's own differ at most in what
// its unit makes private.
func hostNamespaces() (Namespaces, error) { return readNamespaces(1) }

// readPeer reads the namespaces of one thread of an instance, nil where it has none.
func (a *Auditor) readPeer(ctx context.Context, uid spec.UID) (Namespaces, error) {
	tids, err := a.config.Cgroups.Threads(ctx, uid)
	if err != nil {
		return nil, err
	}
	return firstNamespaces(tids)
}

func firstNamespaces(tids []int) (Namespaces, error) {
	for _, tid := range tids {
		ns, err := readNamespaces(tid)
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
