package api_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/api/apitest"
	"github.com/gpuhost/gpuhost/agent/client"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

func TestListenReplacesWhatADeadAgentLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "sock")
	first, err := api.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	first.SetUnlinkOnClose(false) // as a killed process
	first.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Fatal(err)
	}
	second, err := api.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("mode %v, want 0666: the kernel's word counts, not the file's", info.Mode())
	}
}

func TestListenLeavesOthersAlone(t *testing.T) {
	dir := t.TempDir()
	taken, file := filepath.Join(dir, "taken"), filepath.Join(dir, "file")
	other, err := net.Listen("unix", taken)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		taken: "listen on " + taken + ": another agent (pid " + strconv.Itoa(os.Getpid()) + ") is listening",
		file:  "listen on " + file + ": a file that is no socket is there",
	} {
		_, err := api.Listen(path)
		if !fault.Is(err, fault.Conflict) || err.Error() != want {
			t.Errorf("%v, want conflict %q", err, want)
		}
	}
	if text, _ := os.ReadFile(file); string(text) != "precious" {
		t.Error("the file was touched")
	}
	if conn, err := net.Dial("unix", taken); err != nil {
		t.Errorf("the other agent's socket is gone: %v", err)
	} else {
		conn.Close()
	}
}

// TestKernelNamesTheCaller connects as other users: credentials are the
// connecting thread's.
func TestKernelNamesTheCaller(t *testing.T) {
	needRoot(t)
	address, stop, err := apitest.Serve(apitest.New(), api.Options{
		Peers: api.Peers{OperatorGroups: []uint32{7001}, ViewerGroups: []uint32{7002}, Tenants: map[uint32]string{7003: "acme"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	path := address[len("unix://"):]
	if err := os.Chmod(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		uid    int
		groups []int
		want   api.Caller
	}{
		{0, nil, api.Caller{Name: "root", Role: api.RoleOperator}},
		{7000, []int{7001}, api.Caller{UID: 7000, Name: "uid:7000", Role: api.RoleOperator}},
		{7000, []int{7009, 7002}, api.Caller{UID: 7000, Name: "uid:7000", Role: api.RoleViewer}},
		{7003, nil, api.Caller{UID: 7003, Name: "uid:7003", Role: api.RoleTenant, Tenant: "acme"}},
		{7000, nil, api.Caller{UID: 7000, Name: "uid:7000"}},
	} {
		got := make(chan api.Caller, 1)
		go func() { got <- callerAs(t, address, row.uid, row.groups) }()
		if caller := <-got; caller != row.want {
			t.Errorf("uid %d groups %v: %+v, want %+v", row.uid, row.groups, caller, row.want)
		}
	}
}

// callerAs asks on a thread that gave up being root and dies afterwards.
func callerAs(t *testing.T, address string, uid int, groups []int) api.Caller {
	runtime.LockOSThread() // never unlocked
	conn, err := connectAs(address[len("unix://"):], uid, groups)
	if err != nil {
		t.Error(err)
		return api.Caller{}
	}
	c := client.NewWithDialer(address, func(context.Context) (net.Conn, error) { return conn, nil })
	defer c.Close()
	who, err := c.Caller(context.Background())
	if err != nil {
		t.Error(err)
	}
	return who
}

// connectAs uses raw system calls: package syscall's change every thread.
func connectAs(path string, uid int, groups []int) (net.Conn, error) {
	gids := make([]uint32, len(groups)+1) // never empty, so that it has an address
	for i, g := range groups {
		gids[i] = uint32(g)
	}
	gids[len(groups)] = 7100
	if uid != 0 {
		if err := dropThread(gids, uid); err != nil {
			return nil, err
		}
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close()
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, err
	}
	return net.FileConn(file)
}

// TestConnectionsOfOneUser holds as many as one user may have: the next is closed,
// and once one is given back there is room again.
func TestConnectionsOfOneUser(t *testing.T) {
	needRoot(t)
	address, stop, err := apitest.Serve(apitest.New(), api.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	path := address[len("unix://"):]
	if err := os.Chmod(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- fillConnections(path) }()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func fillConnections(path string) error {
	runtime.LockOSThread() // never unlocked: the thread is the other user's
	if err := dropThread([]uint32{7100}, 7004); err != nil {
		return err
	}
	held := make([]net.Conn, api.MaxConnections)
	for i := range held {
		conn, err := connectAs(path, 0, nil)
		if err != nil {
			return err
		}
		defer conn.Close()
		if !answers(conn) {
			return fmt.Errorf("connection %d is not answered", i+1)
		}
		held[i] = conn
	}
	more, err := connectAs(path, 0, nil)
	if err != nil {
		return err
	}
	defer more.Close()
	if answers(more) {
		return errors.New("one connection too many is answered")
	}
	held[0].Close()
	for { // the server learns of it by and by
		again, err := connectAs(path, 0, nil)
		if err != nil {
			return err
		}
		defer again.Close()
		if answers(again) {
			return nil
		}
	}
}

// answers asks for a path that is always there, and keeps the connection.
func answers(conn net.Conn) bool {
	if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: gpuhost\r\n\r\n"); err != nil {
		return false
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, answer.Body)
	return err == nil
}

// needRoot passes over a test that connects as other users where it may not.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		hosttest.Missing(t, "needs root to connect as other users")
	}
}
