package bench_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gpuhost/gpuhost/network/netns"
)

// outsideAddress answers every datagram.
const outsideAddress = "198.51.100.2:7007"

// flow is a stream of numbered datagrams from an instance to the outside and
// back, one each five milliseconds.
type flow struct {
	conn net.Conn
	sent atomic.Uint64
	seen map[uint64]bool // by the reader alone until it has ended
	stop chan struct{}
	done sync.WaitGroup
}

// newFlow starts a flow out of the network namespace of process pid.
func newFlow(b *testing.B, pid int) *flow {
	b.Helper()
	f := &flow{seen: make(map[uint64]bool), stop: make(chan struct{})}
	echo(b)
	in(b, fmt.Sprintf("/proc/%d/ns/net", pid), func() (err error) {
		f.conn, err = net.Dial("udp", outsideAddress)
		return err
	})
	f.done.Go(f.send)
	f.done.Go(f.receive)
	return f
}

// in runs fn in a network namespace.
func in(b *testing.B, path string, fn func() error) {
	b.Helper()
	file, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	if err := netns.Do(file, fn); err != nil {
		b.Fatal(err)
	}
}

// echo answers outside until the benchmark ends.
func echo(b *testing.B) {
	b.Helper()
	var socket net.PacketConn
	in(b, "/run/netns/outside", func() (err error) {
		socket, err = net.ListenPacket("udp", outsideAddress)
		return err
	})
	b.Cleanup(func() { socket.Close() })
	go func() {
		buf := make([]byte, 64)
		for {
			n, from, err := socket.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = socket.WriteTo(buf[:n], from) // what is lost is counted at the other end
		}
	}()
}

func (f *flow) send() {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-f.stop:
			return
		case <-tick.C:
			_, _ = f.conn.Write(binary.BigEndian.AppendUint64(nil, f.sent.Add(1))) // counted at the other end
		}
	}
}

func (f *flow) receive() {
	buf := make([]byte, 64)
	for {
		n, err := f.conn.Read(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed):
			return
		case err == nil && n == 8:
			f.seen[binary.BigEndian.Uint64(buf)] = true
		}
	}
}

// end stops the flow and says how many were sent and how many never came back.
func (f *flow) end(b *testing.B) (sent, lost int) {
	b.Helper()
	close(f.stop)
	if err := f.conn.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		b.Fatal(err)
	}
	f.done.Wait()
	f.conn.Close()
	sent = int(f.sent.Load())
	return sent, sent - len(f.seen)
}
