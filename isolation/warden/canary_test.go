package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/isolation/warden/canary"
	"github.com/gpuhost/gpuhost/isolation/warden/launch"
)

const canaryUID = spec.UID("aaaaaaaa")

// newCgroup makes a cgroup for one test below the private mount, removed with all
// that is below it.
func newCgroup(t *testing.T) string {
	t.Helper()
	dir := "/sys/fs/cgroup/gpuhost-wardentest"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, below := range []string{"/*/*/cgroup.procs", "/*/cgroup.procs", "/cgroup.procs"} {
			found, _ := filepath.Glob(dir + below)
			for _, file := range found {
				if err := os.Remove(filepath.Dir(file)); err != nil {
					t.Error(err)
				}
			}
		}
	})
	return dir
}

// withInstance gives the host a launcher over an instance's parent cgroup.
func (h host) withInstance(t *testing.T) host {
	t.Helper()
	root := newCgroup(t)
	h.paths.CgroupMount, h.paths.CgroupRoot = filepath.Dir(root), "/"+filepath.Base(root)
	if err := os.Mkdir(h.paths.CgroupDir(canaryUID), 0o755); err != nil {
		t.Fatal(err)
	}
	return h.with(t, h.paths)
}

func (h host) with(t *testing.T, paths isolation.Paths) host {
	l := launch.New(launch.Config{Paths: paths, UID: nobody, GID: nobody, Stderr: os.Stderr})
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		emptied(t, filepath.Join(paths.CgroupMount, paths.CgroupRoot))
	})
	return host{l, paths}
}

// emptied waits until nobody is left in a cgroup: who was killed may take a moment.
func emptied(t *testing.T, dir string) {
	t.Helper()
	until(t, dir+" is empty", func() bool {
		events, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
		return err == nil && strings.Contains(string(events), "populated 0")
	})
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for late := time.Now().Add(30 * time.Second); !is(); runtime.Gosched() {
		if time.Now().After(late) {
			t.Fatal("not in time:", what)
		}
	}
}

// One visit tries as both: what file modes close to the tenant is open to root, and
// the kernel's answers come back in their places.
func TestCanaryTellsWhatTheKernelAnswers(t *testing.T) {
	h := newHost(t).withInstance(t)
	folder := t.TempDir()
	private := filepath.Join(folder, "null")
	if err := syscall.Mknod(private, syscall.S_IFCHR|0o600, 1<<8|3); err != nil {
		t.Fatal(err)
	}
	// The path of a file in a test's own folder must be open to the other user.
	for dir := folder; dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	want := canary.Answer{
		Root: []canary.Result{
			{Path: "/dev/null", Major: 1, Minor: 3},
			{Path: "/dev/null", Major: 1, Minor: 5, Errno: syscall.ENODEV}, // another device than said
			{Path: private, Major: 1, Minor: 3},
			{Path: `/dev/"odd"\name`, Major: 195, Minor: 255, Errno: syscall.ENOENT},
		},
		Tenant: []canary.Result{
			{Path: private, Major: 1, Minor: 3, Errno: syscall.EACCES}, // there, and not this user's
			{Path: "/dev/null", Major: 1, Minor: 5, Errno: syscall.ENODEV},
			{Path: "/dev/null", Major: 1, Minor: 3},
		},
	}
	for range 3 {
		got, err := h.Canary(t.Context(), canaryUID, canary.Tries{Root: nodes(want.Root), Tenant: nodes(want.Tenant), UID: nobody})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func nodes(results []canary.Result) (out []canary.Node) {
	for _, r := range results {
		out = append(out, canary.Node{Path: r.Path, Major: r.Major, Minor: r.Minor})
	}
	return out
}

func TestCanaryIsNoTenantAsRoot(t *testing.T) {
	h := newHost(t).withInstance(t)
	tries := canary.Tries{Tenant: []canary.Node{{Path: "/dev/null", Major: 1, Minor: 3}}}
	if answer, err := h.Canary(t.Context(), canaryUID, tries); !fault.Is(err, fault.Temporary) {
		t.Errorf("got %v, %v", answer, err)
	}
}

// A canary that cannot be started has proved nothing, and makes no cgroup of an
// instance that has none: the outer program would be missing there.
func TestCanaryWithoutItsInstanceFails(t *testing.T) {
	h := newHost(t).withInstance(t)
	if answer, err := h.Canary(t.Context(), "bbbbbbbb", canary.Tries{}); !fault.Is(err, fault.Temporary) {
		t.Errorf("got %v, %v", answer, err)
	}
	if _, err := os.Stat(h.paths.CgroupDir("bbbbbbbb")); err == nil {
		t.Error("it made the instance's cgroup")
	}
}

func TestCanaryThatIsMissingFails(t *testing.T) {
	h := newHost(t).withInstance(t)
	h.paths.Warden = filepath.Join(t.TempDir(), "warden")
	h = h.with(t, h.paths)
	for range 3 { // more often than there may be canaries at once
		if answer, err := h.Canary(t.Context(), canaryUID, canary.Tries{}); !fault.Is(err, fault.Temporary) {
			t.Errorf("got %v, %v", answer, err)
		}
	}
}

// What a stop leaves of an instance's cgroup was killed once; the next run's canary
// lives all the same.
func TestCanaryAfterAStopLives(t *testing.T) {
	h := newHost(t).withInstance(t)
	for range 3 {
		h.visit(t)
		h.write(t, h.paths.CgroupDir(canaryUID), "cgroup.kill", "1")
	}
}

// visit fails the test unless a canary comes to its end.
func (h host) visit(t *testing.T) {
	t.Helper()
	if _, err := h.Canary(t.Context(), canaryUID, canary.Tries{}); err != nil {
		t.Fatal(err)
	}
}

func (h host) write(t *testing.T, dir, file, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0); err != nil {
		t.Fatal(err)
	}
}

// hang sends a canary that comes to no end, and gives the pidfd of what is in the
// instance's cgroup, its parent, and what becomes of the visit. A frozen process
// stands for one that a driver keeps, but that it hears SIGKILL.
func (h host) hang(t *testing.T, ctx context.Context) (pidfd, parent int, ended chan error) {
	t.Helper()
	h.write(t, h.paths.CgroupDir(canaryUID), "cgroup.freeze", "1")
	ended = make(chan error, 1)
	go func() {
		_, err := h.Canary(ctx, canaryUID, canary.Tries{})
		ended <- err
	}()
	var pid int
	until(t, "a canary is in the cgroup", func() bool {
		text, _ := os.ReadFile(filepath.Join(h.paths.CgroupMount, h.paths.CanaryCgroup(canaryUID), "cgroup.procs"))
		pid, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		return pid != 0
	})
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(pidfd) })
	for _, text := range status(t, pid, "PPid") {
		parent, _ = strconv.Atoi(text)
	}
	return pidfd, parent, ended
}

// A canary that hangs is left behind after its time, and there is no second one
// beside it.
func TestCanaryThatHangsIsAlone(t *testing.T) {
	h := newHost(t).withInstance(t)
	ctx, cancel := context.WithCancel(t.Context())
	child, _, ended := h.hang(t, ctx)
	if _, err := h.Canary(t.Context(), canaryUID, canary.Tries{}); err == nil || !strings.Contains(err.Error(), "earlier canary") {
		t.Errorf("a second canary: %v", err)
	}
	cancel()
	if err := <-ended; !fault.Is(err, fault.Temporary) {
		t.Errorf("the first canary: %v", err)
	}
	awaitGone(t, child)
	h.thaw(t)
	h.visit(t)
}

func (h host) thaw(t *testing.T) {
	t.Helper()
	emptied(t, h.paths.CgroupDir(canaryUID))
	h.write(t, h.paths.CgroupDir(canaryUID), "cgroup.freeze", "0")
}

// The stop of an instance ends what visits it, and nothing else.
func TestCanaryWhoseCgroupIsKilledHasProvedNothing(t *testing.T) {
	h := newHost(t).withInstance(t)
	_, parent, ended := h.hang(t, t.Context())
	h.write(t, h.paths.CgroupDir(canaryUID), "cgroup.kill", "1")
	if err := <-ended; !fault.Is(err, fault.Temporary) || !strings.Contains(err.Error(), "SIGKILL") {
		t.Errorf("the visit: %v", err)
	}
	h.thaw(t)
	h.visit(t)
	if err := unix.Kill(parent, 0); err != nil {
		t.Errorf("the canary: %v", err)
	}
}

// A canary that dies in mid-visit leaves nothing in the instance's cgroup; one that
// died between two visits is not missed.
func TestCanaryThatDiesLeavesNothing(t *testing.T) {
	h := newHost(t).withInstance(t)
	child, parent, ended := h.hang(t, t.Context())
	killAndWait(t, parent)
	if err := <-ended; !fault.Is(err, fault.Temporary) {
		t.Errorf("the visit: %v", err)
	}
	awaitGone(t, child)
	h.thaw(t)
	h.visit(t)
	for _, pid := range h.canaries(t) {
		killAndWait(t, pid)
	}
	h.visit(t)
}

// canaries are the processes that are kept, which are in the wardens' cgroup.
func (h host) canaries(t *testing.T) (pids []int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(h.paths.CgroupMount, h.paths.CgroupRoot, "wardens", "cgroup.procs"))
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// Nothing but the child enters the instance's cgroup, however many visits there are.
func TestCanaryStaysOutside(t *testing.T) {
	h := newHost(t).withInstance(t)
	for range 20 {
		h.visit(t)
	}
	emptied(t, h.paths.CgroupDir(canaryUID))
	if n := len(h.canaries(t)); n != 1 {
		t.Errorf("%d canaries are kept of one at a time", n)
	}
}

// With the agent ends what it sent out, also from in a visit.
func TestCanaryEndsWithTheAgent(t *testing.T) {
	h := newHost(t).withInstance(t)
	dir := filepath.Join(h.paths.CgroupDir(canaryUID), "canary")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	h.write(t, h.paths.CgroupDir(canaryUID), "cgroup.freeze", "1")
	cmd := exec.Command(h.paths.Warden, "canary")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := canary.WriteVisit(in, canary.Visit{Cgroup: dir}); err != nil {
		t.Fatal(err)
	}
	until(t, "a canary is in the cgroup", func() bool {
		text, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		return len(text) > 0
	})
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("it says that all went well")
	}
	emptied(t, h.paths.CgroupDir(canaryUID))
}
