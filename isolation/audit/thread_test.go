package audit

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

// roleVariable makes the test binary play a process without its first thread.
const roleVariable = "GPUHOST_AUDIT_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) != "" {
		playWithoutLeader()
	}
	hosttest.Main(m)
}

func playWithoutLeader() {
	for range 64 { // one of them lands on the first thread
		go func() {
			runtime.LockOSThread()
			if unix.Gettid() == os.Getpid() {
				_, _, _ = unix.Syscall(unix.SYS_EXIT, 0, 0, 0)
			}
			select {}
		}()
	}
	for ended := false; !ended; runtime.Gosched() {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", os.Getpid()))
		ended = err == nil && strings.Contains(string(stat), ") Z ")
	}
	fmt.Println("ready")
	select {}
}

// joinWithoutLeader puts a host process into the task's cgroup whose first thread
// has ended.
func (v *task) joinWithoutLeader() *exec.Cmd {
	v.t.Helper()
	leaf, err := os.Open(filepath.Join(v.paths.CgroupMount, v.paths.TaskCgroup(v.lease.UID)))
	v.must(err)
	defer leaf.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"=without-leader")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(leaf.Fd())}
	out, err := cmd.StdoutPipe()
	v.must(err)
	v.must(cmd.Start())
	v.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		v.t.Fatalf("the process says %q: %v", line, err)
	}
	return cmd
}

// A process whose first thread has ended has not: what its other threads hold is
// judged, and a task of that kind is looked at through one of them.
func TestProcessWithoutItsFirstThreadIsSeen(t *testing.T) {
	victim := newHost(t).create(newLease(1, 0)).start()
	intruder := victim.joinWithoutLeader()
	controls := victim.audit()
	for _, id := range []string{"I2", "I3", "I4", "K1"} {
		if !slices.Contains(failed(controls), id) {
			t.Errorf("%s is not found; failed are %v\n%s", id, failed(controls), text(controls))
		}
	}
	pid := intruder.Process.Pid
	tid, err := victim.auditor.witness(t.Context(), victim.lease.UID, pid)
	if err != nil || tid == pid {
		t.Fatalf("witness = %d, %v", tid, err)
	}
	if _, err := rootOwner(tid); err != nil {
		t.Error(err)
	}
}

func TestTaskThatEndsInItsAuditIsAConflict(t *testing.T) {
	victim := newHost(t).create(newLease(1, 0)).start()
	victim.auditor.config.Canary = lateCanary(func() { victim.must(victim.tree.Kill(t.Context(), victim.lease.UID)) })
	controls, err := victim.auditor.Audit(t.Context(), victim.lease, victim.pid)
	if !fault.Is(err, fault.Conflict) || len(controls) > 0 {
		t.Errorf("Audit = %v, %v", failed(controls), err)
	}
}
