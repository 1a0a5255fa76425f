// Package nft speaks rulesets to the kernel's nftables over netlink. It is the
// only importer of google/nftables and holds what has to be known about it:
//
//   - its sockets poll with select(2), which cannot take a descriptor of 1,024 or
//     more: [Descriptors] keeps low ones in reserve;
//   - one failing message aborts the whole batch: a transaction is all or nothing;
//   - fields of a concatenation are padded to 4 bytes, each in its own register;
//   - it does not read back a chain's device or a rule's chain in a table-wide
//     dump: read.go asks the kernel itself.
//
// Neighbours: network/ruleset says what to apply, network decides when.
package nft

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// Conn is a lasting socket into one network namespace. It is for one goroutine
// at a time.
type Conn struct {
	nft   *nftables.Conn
	raw   *netlink.Conn
	low   *Descriptors
	table string
}

// bufferBytes bounds one transaction and one answer of the kernel; it is a limit,
// not memory that is held.
const bufferBytes = 64 << 20

// maxDescriptor is FD_SETSIZE, the end of what select(2) can watch.
const maxDescriptor = unix.FD_SETSIZE

// Open connects to the namespace that netns refers to, nil for the caller's own,
// for tables of the given name.
func Open(low *Descriptors, netns *os.File, table string) (*Conn, error) {
	var options []nftables.ConnOption
	config := &netlink.Config{}
	if netns != nil {
		options = append(options, nftables.WithNetNSFd(int(netns.Fd())))
		config.NetNS = int(netns.Fd())
	}
	options = append(options, nftables.AsLasting(), nftables.WithSockOptions(prepare))
	low.lend()
	defer low.refill()
	conn, err := nftables.New(options...)
	if err != nil {
		return nil, fmt.Errorf("open nftables socket: %w", err)
	}
	raw, err := netlink.Dial(unix.NETLINK_NETFILTER, config)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open netfilter socket: %w", err), conn.CloseLasting())
	}
	if err := raw.SetReadBuffer(bufferBytes); err != nil {
		return nil, errors.Join(fmt.Errorf("enlarge netfilter socket: %w", err), raw.Close(), conn.CloseLasting())
	}
	return &Conn{nft: conn, raw: raw, low: low, table: table}, nil
}

// Close closes the sockets. What was loaded stays.
func (c *Conn) Close() error {
	err := errors.Join(c.nft.CloseLasting(), c.raw.Close())
	c.low.regain()
	return err
}

func prepare(conn *netlink.Conn) error {
	if err := checkDescriptor(conn); err != nil {
		return err
	}
	if err := conn.SetWriteBuffer(bufferBytes); err != nil {
		return err
	}
	return conn.SetReadBuffer(bufferBytes)
}

func checkDescriptor(conn *netlink.Conn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var number uintptr
	if err := raw.Control(func(fd uintptr) { number = fd }); err != nil {
		return err
	}
	if number >= maxDescriptor {
		return fault.New(fault.Exhausted, "open nftables socket", "descriptor %d is beyond what select can watch (%d)", number, maxDescriptor)
	}
	return nil
}

// Descriptors keeps low file descriptors in reserve, so that a namespace that is
// made late in a long-lived process still gets one.
type Descriptors struct {
	mu       sync.Mutex
	size     int
	reserved []*os.File
}

// Reserve opens n descriptors, to be given up one by one.
func Reserve(n int) (*Descriptors, error) {
	d := &Descriptors{size: n}
	if err := d.fill(); err != nil {
		return nil, errors.Join(fmt.Errorf("reserve descriptors: %w", err), d.Close())
	}
	return d, nil
}

// fill opens what the reserve lacks, as long as low ones are free.
func (d *Descriptors) fill() error {
	for len(d.reserved) < d.size {
		f, err := os.Open(os.DevNull)
		if err != nil {
			return err
		}
		if f.Fd() >= maxDescriptor {
			return f.Close()
		}
		d.reserved = append(d.reserved, f)
	}
	return nil
}

// regain takes back what a closed socket had.
func (d *Descriptors) regain() {
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = d.fill() // the next socket that closes fills it
}

// lend gives up one reserved descriptor, which the next socket then gets: the
// kernel hands out the lowest free number. refill ends the turn.
func (d *Descriptors) lend() {
	d.mu.Lock()
	if n := len(d.reserved); n > 0 {
		_ = d.reserved[0].Close() // /dev/null: closing cannot lose anything
		d.reserved = d.reserved[1:]
	}
}

func (d *Descriptors) refill() { d.mu.Unlock() }

// Close gives all of them up.
func (d *Descriptors) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all error
	for _, f := range d.reserved {
		all = errors.Join(all, f.Close())
	}
	d.size, d.reserved = 0, nil
	return all
}
