package link

import (
	"context"
	"fmt"

	"github.com/vishvananda/netlink"
)

// WatchAddresses calls changed once it listens, and after each change of an address
// in the caller's own namespace, until ctx ends.
func WatchAddresses(ctx context.Context, changed func()) error {
	for ctx.Err() == nil {
		if err := watchAddresses(ctx, changed); err != nil {
			return err
		}
	}
	return nil
}

// watchAddresses returns when ctx ends, or when more happened than the socket holds.
func watchAddresses(ctx context.Context, changed func()) error {
	updates, done := make(chan netlink.AddrUpdate), make(chan struct{})
	if err := netlink.AddrSubscribe(updates, done); err != nil {
		return fmt.Errorf("subscribe to addresses: %w", err)
	}
	defer func() {
		close(done)
		for range updates { // the sender ends
		}
	}()
	changed()
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, more := <-updates:
			if !more {
				return nil
			}
			changed()
		}
	}
}
