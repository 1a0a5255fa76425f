package agent

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// Whoever holds the metrics port keeps the metrics away, and not the agent.
func TestAPortThatIsTakenIsWaitedFor(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	again := make(chan time.Time)
	told := make(chan error, 3)
	got := make(chan net.Listener)
	go func() {
		listener, err := listenWhenFree(t.Context(), other.Addr().String(), again, func(err error) { told <- err })
		if err != nil {
			t.Error(err)
		}
		got <- listener
	}()
	if err := <-told; !fault.Is(err, fault.Conflict) || fault.HintOf(err) == "" {
		t.Errorf("told %v", err)
	}
	again <- time.Time{}
	if err := <-told; err == nil {
		t.Error("told that the port is free")
	}
	other.Close()
	again <- time.Time{}
	if err := <-told; err != nil {
		t.Errorf("told %v", err)
	}
	(<-got).Close()
}

func TestAnAgentThatEndsWaitsForNoPort(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	ctx, cancel := context.WithCancel(t.Context())
	_, err = listenWhenFree(ctx, other.Addr().String(), nil, func(error) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
