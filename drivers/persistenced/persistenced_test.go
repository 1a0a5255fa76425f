package persistenced

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// copyOf gives the test's own program another name, and so another inode.
func copyOf(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), dir, "nvidia-persistenced")
	body, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, body, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

const playVariable = "PERSISTENCED_TEST_PLAY"

func TestMain(m *testing.M) {
	if os.Getenv(playVariable) != "" {
		os.Stdout.WriteString("here\n")
		_, _ = os.Stdin.Read(make([]byte, 1)) // until the test lets go
		return
	}
	os.Exit(m.Run())
}

func run(t *testing.T, path string) (pid int, end func()) {
	t.Helper()
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), playVariable+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	end = func() { in.Close(); _ = cmd.Wait() }
	t.Cleanup(end)
	return cmd.Process.Pid, end
}

func TestOnlyTheInstalledProgramIsTheDaemon(t *testing.T) {
	installed, other := copyOf(t, "usr/bin"), copyOf(t, "tenant/usr/bin")
	d := Daemon{Path: installed, User: "nobody"}
	mine, end := run(t, installed)
	theirs, _ := run(t, other)
	for _, row := range []struct {
		name   string
		daemon Daemon
		pid    int
		uid    uint32
		want   bool
	}{
		{"as root", d, mine, 0, true},
		{"as its own user", d, mine, 65534, true},
		{"as a tenant", d, mine, 1_879_048_192, false},
		{"another file of that name", d, theirs, 0, false},
		{"another program", d, os.Getpid(), 0, false},
		{"not installed", Daemon{Path: installed + "-absent"}, mine, 0, false},
		{"no such user", Daemon{Path: installed, User: "no-such-user"}, mine, 65534, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			if have, err := row.daemon.Is(row.pid, row.uid); err != nil || have != row.want {
				t.Errorf("have %v, %v", have, err)
			}
		})
	}
	end()
	if have, err := d.Is(mine, 0); err != nil || have {
		t.Errorf("it has ended: have %v, %v", have, err)
	}
}
