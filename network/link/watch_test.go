package link_test

import (
	"context"
	"os/exec"
	"testing"

	"github.com/gpuhost/gpuhost/network/link"
	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

func TestWatchAddresses(t *testing.T) {
	hosttest.Need(t, "ip")
	ctx, stop := context.WithCancel(context.Background())
	seen, done := make(chan struct{}, 10), make(chan error, 1)
	go func() { done <- link.WatchAddresses(ctx, func() { seen <- struct{}{} }) }()
	<-seen // it listens
	for _, verb := range []string{"add", "del"} {
		if out, err := exec.Command("ip", "addr", verb, "192.0.2.99/32", "dev", "lo").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		<-seen
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
