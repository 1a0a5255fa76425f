package router

import (
	"net/netip"
	"sync"

	"github.com/gpuhost/gpuhost/network/link"
)

// sharedLink is the host's route socket behind a lock: the lanes of all VPCs have
// ends of transit links there.
type sharedLink struct {
	mu   sync.Mutex
	conn *link.Conn
}

func (l *sharedLink) Get(name string) (*link.State, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn.Get(name)
}

func (l *sharedLink) Addresses(name string) ([]netip.Prefix, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn.Addresses(name)
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

func (l *sharedLink) Settle(name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn.Settle(name)
}
