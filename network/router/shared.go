package router

import (
	"net/netip"
	"sync"

	"github.com/gpuhost/gpuhost/network/link"
)

// sharedLink is the host's route socket, and the mirror of the host's links,
// behind a lock: the lanes of all VPCs have ends of transit links there.
type sharedLink struct {
	mu     sync.Mutex
	conn   *link.Conn
	mirror *link.Mirror
}

func openShared() (*sharedLink, error) {
	conn, err := link.Open(nil)
	if err != nil {
		return nil, err
	}
	mirror, err := link.NewMirror(conn, nil)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &sharedLink{conn: conn, mirror: mirror}, nil
}

func (l *sharedLink) close() {
	l.mirror.Close()
	l.conn.Close()
}

// Look says how a link is now, and which addresses it has; nil when there is none
// of that name.
func (l *sharedLink) Look(name string) (*link.State, []netip.Prefix, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.mirror.Look(); err != nil {
		return nil, nil, err
	}
	addresses, err := l.mirror.Addresses(name)
	return l.mirror.Get(name), addresses, err
}

func (l *sharedLink) Delete(name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn.Delete(name)
}

func (l *sharedLink) Alias(name, alias string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn.Alias(name, alias)
}

func (l *sharedLink) Address(name string, address netip.Prefix) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn.Address(name, address)
}

func (l *sharedLink) Up(name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn.Up(name)
}

func (l *sharedLink) Addressed() ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn.Addressed()
}

func (l *sharedLink) Uplinks() ([]link.Uplink, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn.Uplinks()
}

func (l *sharedLink) Settle(name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn.Settle(name)
}
