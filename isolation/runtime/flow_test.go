package runtime

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/packaging/lab/ociimage"
)

func TestInstanceOutlivesTheAgent(t *testing.T) {
	h := newHost(t)
	lease := testLease(h.importBusybox("acme"), "sh", "-c", "echo hello; echo oops >/dev/stderr; while [ ! -e /go ]; do sleep 0.05; done; exit 7")
	out := h.start(lease)
	running := h.state()
	if running.Task.Status != isolation.TaskRunning || running.Generation != 3 || len(running.Fingerprint.Differs(isolation.FingerprintOf(lease))) > 0 {
		t.Fatalf("state %+v", running)
	}
	before := h.pid()
	h.die()
	h.boot()
	if after := h.pid(); after != before {
		t.Fatalf("containerd %d became %d", before, after)
	}
	if again := h.state(); again.Task.Pid != running.Task.Pid {
		t.Errorf("task %+v became %+v", running.Task, again.Task)
	}
	exits := h.client.Exits(t.Context())
	var stat unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/root/bin/busybox", running.Task.Pid), &stat); err != nil || stat.Uid != lease.IDs.Start {
		t.Errorf("the root file system is not idmapped: owner %d, %v", stat.Uid, err)
	}
	h.exec(nil, "touch", "/go")
	if exit := <-exits; exit.UID != testUID || exit.Tenant != "acme" || exit.Status.Code != 7 || exit.Status.Unknown {
		t.Errorf("exit %+v", exit)
	}
	if exit := h.state().Task.Exit; exit == nil || exit.Code != 7 {
		t.Errorf("exit in state: %+v", exit)
	}
	h.remove()
	if text := out.text(t); !strings.Contains(text, "hello\n") || !strings.Contains(text, "oops\n") {
		t.Errorf("log %q", text)
	}
}

func TestContainerIsWhatTheSpecificationSays(t *testing.T) {
	h := newHost(t)
	h.start(testLease(h.importBusybox("acme"), "sleep", "1000"))
	defer h.remove()
	for _, tt := range []struct{ name, script, want string }{
		{"ids", "cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '", " 0 1879048192 65536\n 0 1879048192 65536\n"},
		{"capabilities", "grep CapBnd /proc/self/status", "CapBnd:\t00000000000405fb\n"},
		{"no new privileges", "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1\n"},
		{"seccomp", "grep ^Seccomp: /proc/self/status", "Seccomp:\t2\n"},
		{"hostname", "hostname", "one\n"},
		{"resolver", "cat /etc/resolv.conf", "nameserver 10.0.0.1\n"},
		{"owner", "stat -c %u:%g /bin/busybox /etc/passwd", "0:0\n0:0\n"},
		{"devices", "ls /dev | tr '\\n' ' '", "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero "},
		{"void", "echo $NVIDIA_VISIBLE_DEVICES", "void\n"},
		{"sysfs", "touch /sys/x 2>&1", "touch: /sys/x: Read-only file system\n"},
		{"port 22", "nc -l -p 22 -w 1 & sleep 0.1; kill $! && echo bound", "bound\n"},
		{"unshare", "unshare -U true 2>&1", "unshare: unshare(0x10000000): Operation not permitted\n"},
		{"mount", "mount -t tmpfs x /tmp 2>&1 | head -n 1", "mount: permission denied (are you root?)\n"},
		{"ping", "ip link set lo up 2>/dev/null; grep -c . /proc/net/dev", "3\n"},
		{"raw packets", "arping -c 1 -I lo 127.0.0.1 2>&1 | head -n 1", "arping: socket: Operation not permitted\n"},
		{"masked", "ls /sys/bus/pci /sys/firmware; cat /proc/interrupts /proc/keys", "/sys/bus/pci:\n\n/sys/firmware:\n"},
		// What is left out below /proc and /sys are masked paths.
		{"mounts without nosuid (K5)", "grep -v nosuid /proc/self/mountinfo | cut -d' ' -f5 | grep -vE '^/(proc|sys)/' | sort | tr '\\n' ' '",
			"/dev/full /dev/null /dev/random /dev/tty /dev/urandom /dev/zero "},
		{"mounts without nodev (K5)", "grep -v nodev /proc/self/mountinfo | cut -d' ' -f5 | grep -vE '^/(proc|sys)/' | sort | tr '\\n' ' '",
			"/dev/full /dev/null /dev/pts /dev/random /dev/tty /dev/urandom /dev/zero "},
		{"root flags", "grep ' / / ' /proc/self/mountinfo | cut -d' ' -f6", "rw,nosuid,nodev,relatime\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			outer := h.t
			h.t = t
			defer func() { h.t = outer }()
			if got, _ := h.exec(nil, "sh", "-c", tt.script); got != tt.want {
				t.Errorf("%s\ngot  %q\nwant %q", tt.script, got, tt.want)
			}
		})
	}
}

func TestKilledContainerdComesBack(t *testing.T) {
	h := newHost(t)
	lease := testLease(h.importBusybox("acme"), "sh", "-c", "while [ ! -e /go ]; do sleep 0.05; done; exit 3")
	h.start(lease)
	pid := h.state().Task.Pid
	exits := h.client.Exits(t.Context())
	h.kill()
	if got := h.state().Task; got.Status != isolation.TaskRunning || got.Pid != pid {
		t.Errorf("task after the crash: %+v, want running with pid %d", got, pid)
	}
	select {
	case exit := <-exits:
		t.Errorf("containerd's crash was taken for an exit: %+v", exit)
	default:
	}
	h.exec(nil, "touch", "/go")
	if exit := <-exits; exit.Status.Code != 3 || exit.Status.Unknown {
		t.Errorf("exit %+v", exit)
	}
	h.kill()
	if got := h.state().Task; got.Status != isolation.TaskExited || got.Exit == nil || !got.Exit.Unknown {
		t.Errorf("task after its exit was lost: %+v", got)
	}
	h.remove()
}

func TestDiskOutlivesTheContainer(t *testing.T) {
	h := newHost(t)
	lease := testLease(h.importBusybox("acme"), "sh", "-c", "echo kept > /root/file")
	h.start(lease)
	h.await()
	ctx := t.Context()
	if err := h.client.DeleteTask(ctx, "acme", testUID); err != nil {
		t.Fatal(err)
	}
	if err := h.client.Delete(ctx, "acme", testUID, isolation.KeepDisk); err != nil {
		t.Fatal(err)
	}
	h.collectGarbage()
	lease.Command = []string{"cat", "/root/file"}
	out := h.start(lease)
	h.await()
	h.remove()
	if text := out.text(t); text != "kept\n" {
		t.Errorf("second container read %q", text)
	}
}

func TestStop(t *testing.T) {
	h := newHost(t)
	ref := h.importBusybox("acme", func(s *ociimage.Spec) { s.Config.StopSignal = "SIGUSR1" })
	h.start(testLease(ref, "sh", "-c", "trap 'exit 5' USR1; while :; do sleep 0.05; done"))
	if err := h.client.StopTask(t.Context(), "acme", testUID, 10*time.Second); err != nil {
		t.Error(err)
	}
	if exit := h.await(); exit.Code != 5 {
		t.Errorf("exit %+v", exit)
	}
	h.remove()
}

func TestTaskThatNeverStartedHasNoExit(t *testing.T) {
	h := newHost(t)
	h.create(testLease(h.importBusybox("acme"), "true"))
	if got := h.state().Task.Status; got != isolation.TaskCreated {
		t.Errorf("status %q", got)
	}
	h.kill()
	if got := h.state().Task.Status; got != isolation.TaskCreated {
		t.Errorf("status %q after containerd's crash", got)
	}
	if err := os.WriteFile(h.config.Paths.CgroupDir(testUID)+"/cgroup.kill", []byte("1"), 0); err != nil {
		t.Error(err)
	}
	if exit := h.await(); exit != nil {
		t.Errorf("exit %+v", exit)
	}
	h.remove()
}

func TestOnlyOneContainerd(t *testing.T) {
	h := newHost(t)
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for range 3 {
		wg.Go(func() { NewSupervisor(h.config).Run(ctx) })
	}
	h.state()
	cancel()
	wg.Wait()
	h.pid()
}
