package notify

import (
	"context"
	"net"
	"path/filepath"
	"strconv"
	"testing"
)

func manager(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return conn
}

func receive(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	buf := make([]byte, 256)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestStatesReachTheManager(t *testing.T) {
	conn := manager(t)
	for _, row := range []struct {
		send func() error
		want string
	}{
		{Ready, "READY=1"},
		{Stopping, "STOPPING=1"},
		{func() error { return Status("2 instances running") }, "STATUS=2 instances running"},
		{func() error { return Status("a\nMAINPID=1") }, "STATUS=a MAINPID=1"},
	} {
		if err := row.send(); err != nil {
			t.Fatal(err)
		}
		if got := receive(t, conn); got != row.want {
			t.Errorf("sent %q, want %q", got, row.want)
		}
	}
}

func TestWatchdogIsFedOnlyByALiveLoop(t *testing.T) {
	conn := manager(t)
	t.Setenv("WATCHDOG_USEC", strconv.Itoa(2000))
	ctx, cancel := context.WithCancel(t.Context())
	asked := 0
	alive := func() bool { asked++; return asked > 3 }
	done := make(chan error, 1)
	go func() { done <- Watch(ctx, alive) }()
	if got := receive(t, conn); got != "WATCHDOG=1" {
		t.Errorf("sent %q, want WATCHDOG=1", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if asked <= 3 {
		t.Errorf("fed after asking %d times; the first three said dead", asked)
	}
}

func TestWithoutAManagerNothingHappens(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Ready(); err != nil {
		t.Error(err)
	}
	if err := Watch(t.Context(), func() bool { return true }); err != nil {
		t.Error(err)
	}
}
