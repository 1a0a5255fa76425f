package nft

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Watch calls changed after every nftables transaction in the namespace that
// netns refers to, nil for the caller's own, whoever made it, until ctx ends. It
// calls it once at the beginning: what happened before is not known.
//
// Of which process a transaction was cannot be told reliably (the kernel gives a
// pid of its own namespace), so changed compares instead of asking.
func Watch(ctx context.Context, netns *os.File, changed func()) error {
	config := &netlink.Config{Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)}
	if netns != nil {
		config.NetNS = int(netns.Fd())
	}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, config)
	if err != nil {
		return fmt.Errorf("watch nftables: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // the read below then fails
	defer func() {
		if stop() {
			_ = conn.Close() // nothing was written
		}
	}()
	changed()
	for {
		messages, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // more happened than fits: look once for all of it
			changed()
			continue
		case err != nil:
			return fmt.Errorf("watch nftables: %w", err)
		}
		if hasGeneration(messages) {
			changed()
		}
	}
}

// hasGeneration says whether a transaction ended: the kernel tells of each change
// and then of the new generation.
func hasGeneration(messages []netlink.Message) bool {
	for _, m := range messages {
		if m.Header.Type == netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN) {
			return true
		}
	}
	return false
}
