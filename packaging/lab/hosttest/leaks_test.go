package hosttest

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLeaksAreSeen(t *testing.T) {
	Need(t, "sleep")
	const mark = "hosttest-leak"
	before := Leaks(t, mark)

	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	cgroup := "/sys/fs/cgroup/" + mark
	if err := os.Mkdir(cgroup, 0o755); err != nil {
		t.Fatal(err)
	}
	sleeper := exec.Command("sleep", "60")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}

	left := strings.Join(Leaks(t, mark).since(before), "\n")
	for _, want := range []string{"cgroup /" + mark, "mount tmpfs " + dir, "process "} {
		if !strings.Contains(left, want) {
			t.Errorf("no line %q in\n%s", want, left)
		}
	}

	sleeper.Process.Kill()
	sleeper.Wait()
	unix.Unmount(dir, 0)
	os.Remove(cgroup)
	if left := Leaks(t, mark).since(before); len(left) != 0 {
		t.Errorf("after removal: %q", left)
	}
}
