package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// wirePatience is how long an answer may take on a machine with other work.
const wirePatience = 3 * time.Second

// outside does f on a thread in the outside machine's network namespace. The
// thread ends with it.
func outside(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread is not to be used again
		done <- func() error {
			ns, err := os.Open("/run/netns/" + outsideNetns)
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
			return f()
		}()
	}()
	return <-done
}

// call connects from the outside to a port of the host.
func call(t *testing.T, port int) *line {
	t.Helper()
	var conn net.Conn
	err := outside(func() (err error) {
		conn, err = net.DialTimeout("tcp4", fmt.Sprintf("%s:%d", hostAddress, port), wirePatience)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &line{conn, bufio.NewReader(conn)}
}

// line is a connection to something that echoes.
type line struct {
	conn    net.Conn
	answers *bufio.Reader
}

// echo sends a line and waits for it to come back.
func (l *line) echo(text string) error {
	if err := l.conn.SetDeadline(time.Now().Add(wirePatience)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(l.conn, text); err != nil {
		return err
	}
	answer, err := l.answers.ReadString('\n')
	if err == nil && answer != text+"\n" {
		return fmt.Errorf("echo of %q is %q", text, answer)
	}
	return err
}

func networks(t *testing.T, h *host) {
	if err := forwards("1"); err != nil {
		t.Error(err)
	}
	for _, target := range []string{"10.0.1.20", hostAddress} {
		if out := h.gpuhost("exec", "acme/a", "--", "nc", "-w", "1", target, "7000"); out.code == 0 {
			t.Errorf("a reaches b at %s", target)
		}
	}
	out := h.expect(0, "exec", "globex/b", "--", "nslookup", "b")
	if !strings.Contains(out.stdout, "10.0.1.20") {
		t.Errorf("b does not know its name: %s", out)
	}
	closed, open := call(t, 7000), call(t, 7001)
	if err := closed.echo("one"); err != nil {
		t.Fatal(err)
	}
	if err := open.echo("one"); err != nil {
		t.Fatal(err)
	}
	h.apply(h.twoTenants("7001"))
	if err := closed.echo("two"); err == nil {
		t.Error("the connection that is no longer allowed goes on")
	}
	if err := open.echo("two"); err != nil {
		t.Errorf("the connection that is still allowed: %v", err)
	}
	h.apply(h.twoTenants("7000,7001"))
	if err := call(t, 7000).echo("three"); err != nil {
		t.Errorf("after the rule is back: %v", err)
	}
}

// sent reads how many packets a server has sent to the internet, from /metrics.
func sent(t *testing.T, server string) int {
	t.Helper()
	client := http.Client{Timeout: patience}
	resp, err := client.Get("http://127.0.0.1:9877/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for row := range strings.Lines(string(text)) {
		if !strings.HasPrefix(row, "gpuhost_network_packets_total{") || !strings.Contains(row, fmt.Sprintf("server=%q", server)) ||
			!strings.Contains(row, `"internet"`) || !regexp.MustCompile(`"(egress|sent|out|transmit)"`).MatchString(row) {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(row[strings.LastIndex(row, " "):]), 64)
		if err != nil {
			t.Fatal(err)
		}
		return int(n)
	}
	return 0
}

// metering: each flow is one SYN that a closed port outside refuses.
func metering(t *testing.T, h *host) {
	const flows = 25
	before := sent(t, "a")
	h.expect(0, "exec", "acme/a", "--", "sh", "-c",
		fmt.Sprintf("for p in $(seq %d); do nc -w 1 %s $((9000 + p)); done; true", flows, outsideAddress))
	eventually(t, func() error {
		if got := sent(t, "a") - before; got != flows {
			return fmt.Errorf("%d packets metered, want %d", got, flows)
		}
		return nil
	})
}
