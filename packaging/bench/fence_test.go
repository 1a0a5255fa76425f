package bench_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

// BenchmarkP9Fence tampers with one running instance after the other, by a
// process of the host in its cgroup (I1 to I4 fail), and measures until the audit
// has found it, and from the order to fence until that process can open nothing
// any more and the tenant's datagrams are not answered any more.
func BenchmarkP9Fence(b *testing.B) {
	const instances = 24
	h := newHost(b)
	h.shortAudits()
	h.fill(instances)
	probe := hosttest.Build(b, "./isolation/attack/probe")
	echo(b)
	r := newReport(b, fmt.Sprintf("P9, R7: %d instances tampered with and fenced one after the other, 8 of them with a GPU", instances))
	ctx := context.Background()
	var found, refused, closed, both times
	for name, pid := range h.pids(ctx) {
		begin := time.Now()
		talk := newEcho(b, pid)
		noOpen := intrude(b, probe, pid)
		noAnswer := talk.end(b)
		order := h.fenceOrder(ctx, name, begin)
		found = append(found, order.Sub(begin))
		refused = append(refused, noOpen.Sub(order))
		closed = append(closed, noAnswer.Sub(order))
		both = append(both, max(noOpen.Sub(order), noAnswer.Sub(order)))
		h.eventually(name+" is fenced", func(ctx context.Context) error { return h.phase(ctx, name, spec.PhaseFenced) })
	}
	r.say("tampered until found            %s (promised: 60 s; the audit runs each 5 s here)", found)
	r.say("order until opens are refused   %s", refused)
	r.say("order until network is closed   %s", closed)
	r.say("order until both                %s; p99 %s (promised: p99 100 ms)", both, ms(both.at(0.99)))
	r.metric(float64(both.at(0.99).Microseconds())/1000, "p99-ms")
	r.metric(float64(found.at(1).Milliseconds()), "found-max-ms")
	r.print()
}

// shortAudits restarts the agent with the shortest interval of audits.
func (h *host) shortAudits() {
	h.b.Helper()
	file := filepath.Join(h.root, "gpuhost.toml")
	text, err := os.ReadFile(file)
	if err != nil {
		h.b.Fatal(err)
	}
	h.write("gpuhost.toml", string(text)+"[audit]\ninterval = \"5s\"\n")
	h.kill()
	h.start()
}

// intrude runs the probe in the cgroup of a task until its opens are refused, and
// returns when that was.
func intrude(b *testing.B, probe string, pid int) time.Time {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, path, _ := strings.Cut(strings.TrimSpace(string(text[bytes.LastIndex(text, []byte("0::")):])), "::")
	group, err := os.Open(filepath.Join("/sys/fs/cgroup", path))
	if err != nil {
		b.Fatal(err)
	}
	defer group.Close()
	cmd := exec.Command(probe, "watch", "/dev/null")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	nanoseconds, err := strconv.ParseInt(strings.TrimSpace(must(b, cmd)), 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return time.Unix(0, nanoseconds)
}

// fenceOrder is when the agent decided to fence an instance: the event that says
// so is written first.
func (h *host) fenceOrder(ctx context.Context, name string, since time.Time) time.Time {
	h.b.Helper()
	var order time.Time
	h.eventually("the fence is told", func(context.Context) error {
		err := h.api.Events(ctx, api.EventQuery{Since: since, Tenant: "acme"}, func(e api.Event) error {
			if e.Reason == "AuditFailed" && e.Object.Name == name && order.IsZero() {
				order = e.At
			}
			return nil
		})
		if err == nil && order.IsZero() {
			err = errors.New("no event yet")
		}
		return err
	})
	return order
}

func (h *host) phase(ctx context.Context, name string, want spec.Phase) error {
	o, err := h.api.Get(ctx, spec.Ref{Kind: spec.KindInstance, Tenant: "acme", Name: name})
	if err != nil {
		return err
	}
	if o.Status == nil || o.Status.Phase != want {
		return fmt.Errorf("it is not %s", want)
	}
	return nil
}

// echoes is a stream of datagrams from an instance to the outside, one each
// millisecond, that remembers when the last one that was answered was sent.
type echoes struct {
	conn net.Conn
	last atomic.Int64
	stop chan struct{}
}

func newEcho(b *testing.B, pid int) *echoes {
	b.Helper()
	e := &echoes{stop: make(chan struct{})}
	in(b, fmt.Sprintf("/proc/%d/ns/net", pid), func() (err error) {
		e.conn, err = net.Dial("udp", outsideAddress)
		return err
	})
	go e.send()
	go e.receive()
	return e
}

func (e *echoes) send() {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-e.stop:
			return
		case now := <-tick.C:
			_, _ = e.conn.Write(binary.BigEndian.AppendUint64(nil, uint64(now.UnixNano()))) // a closed network refuses it
		}
	}
}

func (e *echoes) receive() {
	buf := make([]byte, 64)
	for {
		n, err := e.conn.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil && n == 8 {
			e.last.Store(int64(binary.BigEndian.Uint64(buf)))
		}
	}
}

// quiet is how long no answer means that none will come.
const quiet = time.Second

// end waits until nothing is answered any more and says when the last answered
// datagram was sent.
func (e *echoes) end(b *testing.B) time.Time {
	b.Helper()
	if e.last.Load() == 0 {
		b.Fatal("the network was never open")
	}
	tick := time.NewTicker(quiet / 10)
	defer tick.Stop()
	for range tick.C {
		if last := time.Unix(0, e.last.Load()); time.Since(last) > quiet {
			close(e.stop)
			e.conn.Close()
			return last
		}
	}
	return time.Time{}
}
