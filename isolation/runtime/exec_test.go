package runtime

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/isolation"
)

// patience is more than any command here takes to begin.
const patience = time.Minute

func TestExec(t *testing.T) {
	h := newHost(t)
	h.start(testLease(h.importBusybox("acme"), "sleep", "1000"))
	defer h.remove()
	for _, tt := range []struct {
		name    string
		options ExecOptions
		args    []string
		out     string
		code    int
	}{
		{"output and code", ExecOptions{}, []string{"sh", "-c", "echo out; exit 4"}, "out\n", 4},
		{"user", ExecOptions{User: &isolation.User{UID: 12, GID: 34}}, []string{"id"}, "uid=12 gid=34\n", 0},
		{"environment", ExecOptions{Env: []string{"A=1", "PATH=/bin"}}, []string{"sh", "-c", "echo $A $PATH"}, "1 /bin\n", 0},
		{"terminal", ExecOptions{TTY: true}, []string{"tty"}, "/dev/pts/0\r\n", 0},
		{"rights", ExecOptions{}, []string{"sh", "-c", "grep -E 'CapEff|NoNewPrivs|^Seccomp:' /proc/self/status"}, "CapEff:\t00000000000405fb\nNoNewPrivs:\t1\nSeccomp:\t2\n", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, code := h.exec(&tt.options, tt.args...)
			if out != tt.out || code != tt.code {
				t.Errorf("%q with code %d, want %q with %d", out, code, tt.out, tt.code)
			}
		})
	}
}

func TestExecStdinResizeKill(t *testing.T) {
	h := newHost(t)
	h.start(testLease(h.importBusybox("acme"), "sleep", "1000"))
	defer h.remove()
	dir := t.TempDir()
	options := ExecOptions{ID: "e1", Args: []string{"sh", "-c", "read x; stty size; read x; sleep 1000"}, TTY: true, Stdin: dir + "/stdin", Stdout: dir + "/stdout"}
	for _, fifo := range []string{options.Stdin, options.Stdout} {
		if err := syscall.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Both ends of each, so that neither opening blocks.
	stdin, err := os.OpenFile(options.Stdin, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := os.OpenFile(options.Stdout, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	process, err := h.client.Exec(t.Context(), "acme", testUID, options)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := process.Start(t.Context(), patience); err != nil {
		t.Fatal(err)
	}
	if err := process.Resize(t.Context(), 132, 43); err != nil {
		t.Fatal(err)
	}
	if _, err := stdin.WriteString("go\n"); err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	for !strings.Contains(text.String(), "43 132") {
		if _, err := io.CopyN(&text, stdout, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := process.Kill(t.Context(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code, err := process.Wait(t.Context()); err != nil || code != 137 {
		t.Errorf("code %d, %v", code, err)
	}
	if err := process.Delete(t.Context()); err != nil {
		t.Error(err)
	}
	if err := process.Kill(t.Context(), syscall.SIGKILL); err != nil {
		t.Errorf("kill what is gone: %v", err)
	}
}

func TestExecRefusals(t *testing.T) {
	h := newHost(t)
	if _, err := h.client.Exec(t.Context(), "acme", testUID, ExecOptions{ID: "e", Args: []string{"true"}}); !fault.Is(err, fault.Conflict) {
		t.Errorf("exec without a task: %v", err)
	}
	h.start(testLease(h.importBusybox("acme"), "sleep", "1000"))
	defer h.remove()
	if _, err := h.client.Exec(t.Context(), "acme", testUID, ExecOptions{ID: "e"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("exec of nothing: %v", err)
	}
	process, err := h.client.Exec(t.Context(), "acme", testUID, ExecOptions{ID: "e", Args: []string{"/no/such/command"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := process.Start(t.Context(), patience); !fault.Is(err, fault.Invalid) {
		t.Errorf("exec of what is not there: %v of kind %q", err, fault.KindOf(err))
	}
}

// TestExecInABusyInstance: a command that its instance leaves no time to begin is
// given up, and what is left of it can be taken away.
func TestExecInABusyInstance(t *testing.T) {
	h := newHost(t)
	h.start(testLease(h.importBusybox("acme"), "sleep", "1000"))
	defer h.remove()
	process, err := h.client.Exec(t.Context(), "acme", testUID, ExecOptions{ID: "late", Args: []string{"true"}})
	if err != nil {
		t.Fatal(err)
	}
	frozen := filepath.Join(h.config.Paths.CgroupDir(testUID), "cgroup.freeze")
	if err := os.WriteFile(frozen, []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	_, err = process.Start(t.Context(), time.Second)
	if thaw := os.WriteFile(frozen, []byte("0"), 0); thaw != nil {
		t.Fatal(thaw)
	}
	if !fault.Is(err, fault.Timeout) || fault.HintOf(err) == "" {
		t.Errorf("have %v of kind %q, hint %q", err, fault.KindOf(err), fault.HintOf(err))
	}
}

func TestMergeEnv(t *testing.T) {
	got := mergeEnv([]string{"A=1", "B=2"}, []string{"A=3", "C=4"})
	if diff := cmp.Diff([]string{"A=3", "B=2", "C=4"}, got); diff != "" {
		t.Error(diff)
	}
}
