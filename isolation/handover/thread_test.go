package handover

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

// roleVariable makes the test binary play a holder, of the node it names.
const roleVariable = "GPUHOST_HANDOVER_TEST_ROLE"

func TestMain(m *testing.M) {
	switch role, node, _ := strings.Cut(os.Getenv(roleVariable), " "); role {
	case "without-leader":
		playWithoutLeader(node)
	case "own-table":
		playOwnTable(node)
	default:
		hosttest.Main(m)
	}
}

// playWithoutLeader holds the node in a process whose first thread has ended.
func playWithoutLeader(node string) {
	hold(node)
	for range 64 { // one of them lands on the first thread
		go func() {
			runtime.LockOSThread()
			if unix.Gettid() == os.Getpid() {
				_, _, _ = unix.Syscall(unix.SYS_EXIT, 0, 0, 0)
			}
			select {}
		}()
	}
	for !leaderEnded() {
		runtime.Gosched()
	}
	report()
}

func leaderEnded() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", os.Getpid()))
	return err == nil && strings.Contains(string(stat), ") Z ")
}

// playOwnTable holds the node in one thread's own table of descriptors.
func playOwnTable(node string) {
	runtime.LockOSThread() // the first thread stays here, the other goes elsewhere
	held := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			panic("the first thread is to be another")
		}
		if err := unix.Unshare(unix.CLONE_FILES); err != nil {
			panic(err)
		}
		hold(node)
		close(held)
		select {}
	}()
	<-held
	report()
}

func hold(node string) {
	if _, err := unix.Open(node, unix.O_RDWR, 0); err != nil {
		panic(err)
	}
}

// report says that the node is held, and waits to be killed.
func report() {
	fmt.Println("held")
	select {}
}

func TestHolderInOneThreadAlone(t *testing.T) {
	for _, role := range []string{"without-leader", "own-table"} {
		t.Run(role, func(t *testing.T) {
			node := fullNode(t)
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), roleVariable+"="+role+" "+node)
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
			if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
				t.Fatalf("the holder says %q: %v", line, err)
			}
			if got := holdersOfFull(t); len(got) != 1 || got[0].PID != cmd.Process.Pid {
				t.Errorf("holders = %+v, want process %d", got, cmd.Process.Pid)
			}
		})
	}
}
