package audit

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/isolation/cgroup"
)

// Each control of a running task is broken from outside, as an operator's slip,
// a defect or an escape would. The audit must name it.
func TestTamperingIsFound(t *testing.T) {
	for _, row := range []struct {
		name   string
		tamper func(*task)
		want   []string // controls that must fail; others may with them
	}{
		{"outer program detached", (*task).detachOuter, []string{"D2", "D3"}},
		{"outer program replaced by a wider one", (*task).widenOuter, []string{"D2"}},
		{"a second program on the parent", func(v *task) { v.attach(v.paths.CgroupDir(v.lease.UID)) }, []string{"D2"}},
		{"inner program replaced by one that allows all", (*task).openInner, []string{"D1"}},
		{"fenced", func(v *task) { v.must(v.tree.Fence(v.t.Context(), v.lease.UID)) }, []string{"D2", "D3"}},
		{"node open to all", func(v *task) { v.must(os.Chmod(v.node("nvidia0"), 0o666)) }, []string{"D4"}},
		{"node of another owner", func(v *task) { v.must(os.Chown(v.node("nvidia1"), 0, 0)) }, []string{"D4"}},
		{"node unmounted", func(v *task) { v.enter("umount", "/dev/nvidia0") }, []string{"D4"}},
		{"another GPU's node inside", func(v *task) { v.plant("nvidia7", "c", "195", "7") }, []string{"D5", "K5"}},
		{"a GPU's node under another name", func(v *task) { v.plant("harmless", "c", "195", "7") }, []string{"D5", "K5"}},
		{"a disk inside", func(v *task) { v.plant("sda", "b", "8", "0") }, []string{"D5", "K5"}},
		{"own node a second time", func(v *task) { v.plant("spare", "c", "195", "0") }, []string{"D5", "K5"}},
		{"null replaced", func(v *task) { v.enter("mount", "-o", "bind", "/dev/zero", "/dev/null") }, []string{"D5"}},
		{"a host's socket mounted", func(v *task) {
			v.enter("mkdir", "-p", "/tmp/nvidia-persistenced")
			v.enter("mount", "-t", "tmpfs", "-o", "nosuid,nodev", "x", "/tmp/nvidia-persistenced")
		}, []string{"D6"}},
		{"mask taken away", func(v *task) { v.enter("umount", "/proc/interrupts") }, []string{"K4"}},
		{"/proc/sys writable", func(v *task) { v.enter("mount", "-o", "remount,bind,rw", "/proc/sys") }, []string{"K4"}},
		{"/sys writable", func(v *task) { v.enter("mount", "-o", "remount,rw", "/sys") }, []string{"K4"}},
		{"mount with suid and devices", func(v *task) { v.enter("mount", "-t", "tmpfs", "x", "/tmp") }, []string{"K5"}},
		{"/dev/shm grown", func(v *task) { v.enter("mount", "-o", "remount,size=1g", "/dev/shm") }, []string{"D10"}},
		{"/dev/shm gone", func(v *task) { v.enter("umount", "/dev/shm") }, []string{"D10"}},
		{"host process in the cgroup", (*task).joinHostProcess, []string{"I2", "I3", "I4", "K1"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			victim := newHost(t).create(newLease(1, 0, 1)).start()
			if controls := victim.audit(); len(failed(controls)) > 0 {
				t.Fatalf("before:\n%s", text(controls))
			}
			row.tamper(victim)
			controls := victim.audit()
			for _, id := range row.want {
				if !slices.Contains(failed(controls), id) {
					t.Errorf("%s is not found; failed are %v\n%s", id, failed(controls), text(controls))
				}
			}
		})
	}
}

func (v *task) node(name string) string { return filepath.Join(v.paths.NodeDir(v.lease.UID), name) }

// plant makes a node inside, on a file system of the host's: the task's own /dev
// belongs to its user namespace, where no device can be opened.
func (v *task) plant(name, kind, major, minor string) {
	v.t.Helper()
	v.enter("mount", "-t", "tmpfs", "x", "/dev/pts")
	v.enter("mknod", "/dev/pts/"+name, kind, major, minor)
}

// enter runs busybox as host root in the task's mount namespace.
func (v *task) enter(args ...string) {
	v.t.Helper()
	all := append([]string{"--target", strconv.Itoa(v.pid), "--mount", "--pid", "--", "/bin/busybox"}, args...)
	if out, err := exec.Command("nsenter", all...).CombinedOutput(); err != nil {
		v.t.Fatalf("in the task: %v: %v: %s", args, err, out)
	}
}

func (v *task) detachOuter() {
	v.detachAll(v.paths.CgroupDir(v.lease.UID))
}

func (v *task) detachAll(dir string) {
	v.t.Helper()
	target, err := os.Open(dir)
	v.must(err)
	defer target.Close()
	result, err := link.QueryPrograms(link.QueryOptions{Target: int(target.Fd()), Attach: ebpf.AttachCGroupDevice})
	v.must(err)
	for _, p := range result.Programs {
		program, err := ebpf.NewProgramFromID(p.ID)
		v.must(err)
		v.must(link.RawDetachProgram(link.RawDetachProgramOptions{Target: int(target.Fd()), Program: program, Attach: ebpf.AttachCGroupDevice}))
		v.must(program.Close())
	}
}

func (v *task) widenOuter() {
	wider := v.lease
	wider.GPUs = append(slices.Clone(wider.GPUs), newLease(1, 7).GPUs...)
	v.must(v.tree.Make(v.t.Context(), wider))
}

// openInner replaces runc's program by one that allows everything.
func (v *task) openInner() {
	leaf := filepath.Join(v.paths.CgroupMount, v.paths.TaskCgroup(v.lease.UID))
	v.detachAll(leaf)
	v.attach(leaf)
}

func (v *task) attach(dir string) {
	v.t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.CGroupDevice, License: "MIT",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
	})
	v.must(err)
	defer program.Close()
	target, err := os.Open(dir)
	v.must(err)
	defer target.Close()
	v.must(link.RawAttachProgram(link.RawAttachProgramOptions{
		Target: int(target.Fd()), Program: program, Attach: ebpf.AttachCGroupDevice, Flags: unix.BPF_F_ALLOW_MULTI,
	}))
}

// joinHostProcess leaves a process of host root in the task's cgroup.
func (v *task) joinHostProcess() {
	v.t.Helper()
	leaf, err := os.Open(filepath.Join(v.paths.CgroupMount, v.paths.TaskCgroup(v.lease.UID)))
	v.must(err)
	defer leaf.Close()
	cmd := exec.Command("/bin/busybox", "sh", "-c", "sleep 60 & echo $!")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(leaf.Fd())}
	out, err := os.CreateTemp(v.t.TempDir(), "pid")
	v.must(err)
	cmd.Stdout = out
	v.must(cmd.Run())
}

// A link the tenant plants in its root is not followed: the host's own /dev/shm
// must not be what is measured.
func TestLinksOfTheTenantAreNotFollowed(t *testing.T) {
	victim := newHost(t).create(newLease(1, 0)).start()
	victim.enter("sh", "-c", "mkdir -p /tmp/x && ln -s /proc/1/root /tmp/x/out")
	r, err := openRoot(victim.pid)
	victim.must(err)
	defer r.close()
	for _, name := range []string{"/tmp/x/out", "/tmp/x/out/etc", "/proc/1/root/etc", "/proc/self/fd/0"} {
		if fd, err := r.open(name, unix.O_PATH); err == nil {
			unix.Close(fd)
			t.Errorf("%s was opened", name)
		}
	}
	if fd, err := r.open("/../../../../etc", unix.O_PATH|unix.O_DIRECTORY); err == nil {
		defer unix.Close(fd)
		var inside, outside unix.Stat_t
		victim.must(unix.Fstat(fd, &inside))
		victim.must(unix.Stat("/etc", &outside))
		if inside.Ino == outside.Ino && inside.Dev == outside.Dev {
			t.Error("/../../etc left the root")
		}
	}
}

// The inner program of a real runc is understood to the last instruction.
func TestRuncProgramIsInterpreted(t *testing.T) {
	victim := newHost(t).create(newLease(1, 0))
	inner := withoutOuter(Facts{
		Outer:     fact(victim.tree.Outer(t.Context(), victim.lease.UID)),
		Effective: fact(victim.tree.Effective(t.Context(), victim.lease.UID)),
	})
	if len(inner) != 1 {
		t.Fatalf("%d inner programs", len(inner))
	}
	got := map[string]bool{}
	for name, a := range map[string]cgroup.Access{
		"own GPU rw":       {Type: unix.BPF_DEVCG_DEV_CHAR, Mode: 6, Major: 195, Minor: 0},
		"other GPU r":      {Type: unix.BPF_DEVCG_DEV_CHAR, Mode: 2, Major: 195, Minor: 1},
		"tun rw":           {Type: unix.BPF_DEVCG_DEV_CHAR, Mode: 6, Major: 10, Minor: 200},
		"mknod other GPU":  {Type: unix.BPF_DEVCG_DEV_CHAR, Mode: 1, Major: 195, Minor: 1},
		"null rw":          {Type: unix.BPF_DEVCG_DEV_CHAR, Mode: 6, Major: 1, Minor: 3},
		"a disk r":         {Type: unix.BPF_DEVCG_DEV_BLOCK, Mode: 2, Major: 8, Minor: 0},
		"mknod of a disk":  {Type: unix.BPF_DEVCG_DEV_BLOCK, Mode: 1, Major: 8, Minor: 0},
		"kernel memory rw": {Type: unix.BPF_DEVCG_DEV_CHAR, Mode: 6, Major: 1, Minor: 1},
	} {
		allowed, err := cgroup.Decide(inner[0].Insns, a)
		victim.must(err)
		got[name] = allowed
	}
	// What is true here beyond the grant is why there is an outer program.
	want := map[string]bool{
		"own GPU rw": true, "other GPU r": false, "tun rw": true, "mknod other GPU": true, "null rw": true,
		"a disk r": false, "mknod of a disk": true, "kernel memory rw": false,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAuditOfAbsentTaskIsAnError(t *testing.T) {
	h := newHost(t)
	if _, err := h.auditor.Audit(t.Context(), newLease(1), os.Getpid()); err == nil {
		t.Error("Audit of a process outside the cgroup passed")
	}
}

func BenchmarkAudit(b *testing.B) {
	running := newHost(b).create(newLease(1, 0, 1)).start()
	for b.Loop() {
		if ids := failed(running.audit()); len(ids) > 0 {
			b.Fatal(fmt.Sprint(ids))
		}
	}
}
