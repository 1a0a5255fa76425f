package cgroup

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

// newTree is a tree of this test's own, removed with everything in it.
func newTree(t testing.TB) (*Tree, isolation.Paths) {
	t.Helper()
	hosttest.Need(t)
	paths := isolation.Paths{
		CgroupMount: "/sys/fs/cgroup",
		CgroupRoot:  fmt.Sprintf("/gpuhost-cgrouptest-%d-%d", os.Getpid(), time.Now().UnixNano()),
	}
	tree, err := New(paths, func() uint32 { return 510 })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		uids, _ := tree.List(context.Background())
		for _, uid := range uids {
			if err := tree.Kill(context.Background(), uid); err != nil {
				t.Error(err)
			}
		}
		if err := tree.Destroy(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return tree, paths
}

func lease(uid string, minors ...uint32) isolation.Lease {
	l := isolation.Lease{UID: spec.UID(uid)}
	for _, m := range minors {
		l.GPUs = append(l.GPUs, isolation.Device{Minor: m})
	}
	return l
}

// makeNodes makes stand-in nodes on a file system that lets them be opened.
func makeNodes(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	for name, number := range map[string][2]uint32{
		"nvidia0": {195, 0}, "nvidia1": {195, 1}, "nvidiactl": {195, 255}, "nvidia-modeset": {195, 254},
		"tun": {10, 200}, "mem": {1, 1}, "null": {1, 3},
	} {
		if err := unix.Mknod(filepath.Join(dir, name), unix.S_IFCHR|0o666, int(unix.Mkdev(number[0], number[1]))); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// withLeaf makes an instance's parent and the leaf that runc would make.
func withLeaf(t testing.TB, tree *Tree, paths isolation.Paths, l isolation.Lease) string {
	t.Helper()
	if err := tree.Make(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	leaf := filepath.Join(paths.CgroupMount, paths.TaskCgroup(l.UID))
	if err := os.MkdirAll(leaf, 0o755); err != nil {
		t.Fatal(err)
	}
	return leaf
}

func TestOuterProgramLetsOnlyTheGrantThrough(t *testing.T) {
	tree, paths := newTree(t)
	leaf := withLeaf(t, tree, paths, lease("aaaaaaaa", 0))
	dev := makeNodes(t)
	tenant := startOpener(t, leaf)
	got := map[string]string{}
	for _, name := range []string{"nvidia0", "nvidia1", "nvidiactl", "nvidia-modeset", "tun", "mem", "null"} {
		got[name] = tenant.ask(filepath.Join(dev, name))
	}
	got["mknod"] = tenant.ask("mknod " + filepath.Join(dev, "new") + " 1 3")
	// No driver is behind major 195: ENXIO means that the program let it through.
	want := map[string]string{
		"nvidia0": "ENXIO", "nvidiactl": "ENXIO", "null": "ok",
		"nvidia1": "EPERM", "nvidia-modeset": "EPERM", "tun": "EPERM", "mem": "EPERM", "mknod": "EPERM",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("opens inside the cgroup (-want +got):\n%s", diff)
	}
}

// TestGPUsWaitForUVM: the module is loaded after the agent started, and then granted.
func TestGPUsWaitForUVM(t *testing.T) {
	tree, _ := newTree(t)
	var major uint32
	tree.uvmMajor = func() uint32 { return major }
	with, without := lease("aaaaaaaa", 0), lease("bbbbbbbb")
	if err := tree.Make(t.Context(), with); !fault.Is(err, fault.Temporary) || fault.HintOf(err) != "modprobe nvidia-uvm" {
		t.Errorf("have %v, hint %q", err, fault.HintOf(err))
	}
	if err := tree.Make(t.Context(), without); err != nil {
		t.Error(err)
	}
	for _, major = range []uint32{510, 507} {
		if err := tree.Make(t.Context(), with); err != nil {
			t.Fatal(err)
		}
		programs, err := tree.Outer(t.Context(), with.UID)
		if err != nil || len(programs) != 1 {
			t.Fatalf("have %d programs, %v", len(programs), err)
		}
		if same, err := programs[0].Is(Rules(isolation.Grant(with, major))); err != nil || !same {
			t.Errorf("major %d is not granted: %v", major, err)
		}
	}
}

func TestFenceRefusesEveryNewOpen(t *testing.T) {
	tree, paths := newTree(t)
	l := lease("aaaaaaaa", 0)
	leaf := withLeaf(t, tree, paths, l)
	dev := makeNodes(t)
	tenant := startOpener(t, leaf)
	node := filepath.Join(dev, "nvidia0")
	if got := tenant.ask(node); got != "ENXIO" {
		t.Fatalf("own GPU before the fence: %s", got)
	}
	for range 2 {
		if err := tree.Fence(t.Context(), l.UID); err != nil {
			t.Fatal(err)
		}
	}
	if got := tenant.ask(node); got != "EPERM" {
		t.Errorf("own GPU behind the fence: %s", got)
	}
	if err := tree.Make(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	if got := tenant.ask(node); got != "ENXIO" {
		t.Errorf("own GPU after the grant came back: %s", got)
	}
}

func TestFenceOfNothingIsDone(t *testing.T) {
	tree, _ := newTree(t)
	if err := tree.Fence(t.Context(), "bbbbbbbb"); err != nil {
		t.Error(err)
	}
	if err := tree.Kill(t.Context(), "bbbbbbbb"); err != nil {
		t.Error(err)
	}
	if err := tree.Remove(t.Context(), "bbbbbbbb"); err != nil {
		t.Error(err)
	}
}

// A uid that is none names the agent's own root, or a folder outside it.
func TestWhatIsNoUIDIsRefused(t *testing.T) {
	tree, paths := newTree(t)
	l := lease("aaaaaaaa")
	tenant := startOpener(t, withLeaf(t, tree, paths, l))
	if err := os.Mkdir(filepath.Join(paths.CgroupMount, paths.CgroupRoot, "stranger-1"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, uid := range []spec.UID{"", ".", "..", "a/../../b", "wardens", "services"} {
		for name, do := range map[string]func() error{
			"Kill":    func() error { return tree.Kill(t.Context(), uid) },
			"Remove":  func() error { return tree.Remove(t.Context(), uid) },
			"Fence":   func() error { return tree.Fence(t.Context(), uid) },
			"Make":    func() error { return tree.Make(t.Context(), lease(string(uid))) },
			"Threads": func() error { _, err := tree.Threads(t.Context(), uid); return err },
			"Outer":   func() error { _, err := tree.Outer(t.Context(), uid); return err },
			"State":   func() error { _, err := tree.State(t.Context(), lease(string(uid))); return err },
		} {
			if do() == nil {
				t.Errorf("%s of %q passed", name, uid)
			}
		}
	}
	if got := tenant.ask("/dev/null"); got != "ok" {
		t.Errorf("the instance's process says %s", got)
	}
	if uids, err := tree.List(t.Context()); err != nil || !slices.Equal(uids, []spec.UID{l.UID}) {
		t.Errorf("List = %v, %v", uids, err)
	}
}

func TestStateTellsPrograms(t *testing.T) {
	tree, paths := newTree(t)
	one, two := lease("aaaaaaaa", 0), lease("aaaaaaaa", 0, 1)
	state := func(l isolation.Lease) isolation.Program {
		t.Helper()
		s, err := tree.State(t.Context(), l)
		if err != nil {
			t.Fatal(err)
		}
		return s.Program
	}
	if s, err := tree.State(t.Context(), one); err != nil || s.Exists {
		t.Fatalf("State before Make = %+v, %v", s, err)
	}
	if err := os.MkdirAll(paths.CgroupDir(one.UID), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := state(one); got != isolation.ProgramNone {
		t.Errorf("no program: %q", got)
	}
	withLeaf(t, tree, paths, one)
	if got := state(one); got != isolation.ProgramGrant {
		t.Errorf("own grant: %q", got)
	}
	if got := state(two); got != isolation.ProgramOther {
		t.Errorf("another grant: %q", got)
	}
	if err := tree.Fence(t.Context(), one.UID); err != nil {
		t.Fatal(err)
	}
	if got := state(one); got != isolation.ProgramDeny {
		t.Errorf("fence: %q", got)
	}
}

// attachForeign puts a program on a cgroup behind the tree's back.
func attachForeign(t testing.TB, dir string, allow int32) {
	t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.CGroupDevice, License: "MIT",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, allow), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	err = link.RawAttachProgram(link.RawAttachProgramOptions{
		Target: int(f.Fd()), Program: program, Attach: ebpf.AttachCGroupDevice, Flags: unix.BPF_F_ALLOW_MULTI,
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestMakeReplacesWhateverIsAttached(t *testing.T) {
	tree, paths := newTree(t)
	l := lease("aaaaaaaa", 0)
	dir := paths.CgroupDir(l.UID)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	attachForeign(t, dir, 1)
	attachForeign(t, dir, 0)
	withLeaf(t, tree, paths, l)
	outer, err := tree.Outer(t.Context(), l.UID)
	if err != nil || len(outer) != 1 {
		t.Fatalf("programs after Make: %v, %v", outer, err)
	}
	if same, err := outer[0].Is(tree.rules(l)); err != nil || !same {
		t.Errorf("the one left is not ours: %v", err)
	}
	before := outer[0].ID
	if err := tree.Make(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	again, err := tree.Outer(t.Context(), l.UID)
	if err != nil || again[0].ID != before {
		t.Errorf("a second Make replaced program %d by %d: %v", before, again[0].ID, err)
	}
}

// While a grant is replaced over and over, a node outside all of them must never open.
func TestReplacingIsNeverOpen(t *testing.T) {
	tree, paths := newTree(t)
	leaf := withLeaf(t, tree, paths, lease("aaaaaaaa", 0))
	forbidden := filepath.Join(makeNodes(t), "nvidia1")
	tenant := startOpener(t, leaf)
	done := make(chan error, 1)
	go func() {
		for i := range 200 {
			if err := tree.Make(context.Background(), lease("aaaaaaaa", 0, uint32(2+i%2))); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for asked := 0; ; asked++ {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d opens refused during 200 replacements", asked)
			return
		default:
		}
		if got := tenant.ask(forbidden); got != "EPERM" {
			t.Fatalf("open %d of a node nobody granted: %s", asked, got)
		}
	}
}

func TestEffectiveShowsInnerAndOuter(t *testing.T) {
	tree, paths := newTree(t)
	l := lease("aaaaaaaa", 0)
	leaf := withLeaf(t, tree, paths, l)
	attachForeign(t, leaf, 1)
	programs, err := tree.Effective(t.Context(), l.UID)
	if err != nil || len(programs) != 2 {
		t.Fatalf("Effective = %v, %v", programs, err)
	}
	ours := slices.IndexFunc(programs, func(a Attached) bool {
		same, err := a.Is(tree.rules(l))
		return err == nil && same
	})
	if ours < 0 {
		t.Fatal("our program is not among them")
	}
	// What the kernel gives back must still be understood.
	excess, err := Excess(programs[ours].Insns, func(a Access) bool { return Allows(tree.rules(l), a) })
	if err != nil || len(excess) > 0 {
		t.Errorf("Excess of the loaded program = %v, %v", excess, err)
	}
	excess, err = Excess(programs[1-ours].Insns, func(a Access) bool { return Allows(tree.rules(l), a) })
	if err != nil || len(excess) == 0 {
		t.Errorf("Excess of a program that allows all = %v, %v", excess, err)
	}
}

func TestControllersAreEnabledDownThePath(t *testing.T) {
	tree, paths := newTree(t)
	l := lease("aaaaaaaa")
	leaf := withLeaf(t, tree, paths, l)
	usable, err := tree.Controllers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	have, err := words(filepath.Join(leaf, "cgroup.controllers"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range usable {
		if !slices.Contains(have, c) {
			t.Errorf("controller %s does not reach the leaf: %v", c, have)
		}
	}
}

func TestNewRefusesWhatIsNoCgroupV2(t *testing.T) {
	_, err := New(isolation.Paths{CgroupMount: t.TempDir(), CgroupRoot: "/gpuhost-x"}, nil)
	if !fault.Is(err, fault.Unsupported) {
		t.Errorf("New = %v", err)
	}
}
