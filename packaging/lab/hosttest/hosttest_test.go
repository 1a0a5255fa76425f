package hosttest_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

func TestMain(m *testing.M) { hosttest.Main(m) }

func TestCgroupIsUnified(t *testing.T) {
	hosttest.Need(t)
	var fs unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &fs); err != nil {
		t.Fatal(err)
	}
	if fs.Type != unix.CGROUP2_SUPER_MAGIC {
		t.Errorf("/sys/fs/cgroup has file system type %#x, want cgroup2", fs.Type)
	}
}

func TestNetworkIsPrivateAndLoopbackWorks(t *testing.T) {
	hosttest.Need(t)
	devices, err := os.ReadDir("/sys/class/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range devices {
		if d.Name() == "eth0" {
			t.Error("the machine's eth0 is visible")
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// A user namespace may mount proc and sysfs only while its parent's are in full
// view: what every instance's start rests on.
func TestUserNamespaceMayMountProcAndSysfs(t *testing.T) {
	hosttest.Need(t, "unshare")
	out, err := exec.Command("unshare", "--user", "--map-root-user", "--mount", "--pid", "--net", "--fork",
		"sh", "-c", "mount -t proc proc /proc && mount -t sysfs sysfs /sys").CombinedOutput()
	if err != nil {
		t.Errorf("mount in a user namespace: %v\n%s", err, out)
	}
}

func TestProcessesAreReaped(t *testing.T) {
	hosttest.Need(t)
	if os.Getpid() == 1 {
		t.Error("tests run as process 1: nobody would reap orphans")
	}
}

func TestRuntimeDirHasTheRuntime(t *testing.T) {
	hosttest.Need(t)
	out, err := exec.Command(hosttest.RuntimeDir(t)+"/runc", "features").CombinedOutput()
	if err != nil {
		t.Errorf("runc features: %v\n%s", err, out)
	}
}

func TestBuildNamesCommandsAsInstalled(t *testing.T) {
	hosttest.Need(t, "go")
	warden := hosttest.Build(t, "./isolation/warden")
	if out, err := exec.Command(warden).CombinedOutput(); err == nil {
		t.Errorf("warden without a command: %s", out)
	}
	if filepath.Base(warden) != "warden" {
		t.Errorf("warden is named %s", warden)
	}
}
