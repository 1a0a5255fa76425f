package api_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/api/apitest"
	"github.com/gpuhost/gpuhost/agent/client"
	"github.com/gpuhost/gpuhost/agent/fault"
)

// TestStopEndsStreams: followers end, and Serve returns.
func TestStopEndsStreams(t *testing.T) {
	backend := apitest.New()
	address, stop, err := apitest.Serve(backend, api.Options{Peers: api.Peers{OperatorGroups: []uint32{uint32(os.Getegid())}}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	lost, ended := make(chan struct{}), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		ended <- c.FollowEvents(ctx, api.EventQuery{}, func(api.Event) error { return nil }, func() { close(lost) })
	}()
	if err := backend.Followed(t.Context(), "events"); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	<-lost
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestReadiness: whoever has no role learns that it is not ready, not why.
func TestReadiness(t *testing.T) {
	backend := apitest.New()
	server := api.NewServer(api.Options{Ready: func(context.Context) error { return errors.New("acme/train-1 is not proved") }}, backend.API())
	for who, body := range map[api.Caller]string{operator: "not ready: acme/train-1 is not proved\n", nobody: "not ready\n"} {
		w := ask(server, who, "GET", "/readyz", "")
		want(t, w, http.StatusServiceUnavailable)
		if w.Body.String() != body {
			t.Errorf("%q: %q, want %q", who.Role, w.Body, body)
		}
	}
	want(t, ask(server, nobody, "GET", "/healthz", ""), http.StatusOK)
	want(t, ask(newServer(backend), nobody, "GET", "/readyz", ""), http.StatusOK)
}

// TestDefectIsAnAnswer: a handler that panics costs its own request only.
func TestDefectIsAnAnswer(t *testing.T) {
	broken := apitest.New().API()
	broken.Host = nil
	server := api.NewServer(api.Options{Log: quiet()}, broken)
	w := ask(server, operator, "GET", "/v1/status", "")
	want(t, w, http.StatusInternalServerError)
	if f := faultOf(t, w); f.Code != string(fault.Internal) {
		t.Errorf("%+v", f)
	}
}

// TestDefectAfterTheAnswerBegan: the connection is cut, and nothing is appended that
// a reader would take for a part of the answer.
func TestDefectAfterTheAnswerBegan(t *testing.T) {
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "gpuhost_servers 1\n")
		panic("defect")
	})
	server := api.NewServer(api.Options{Log: quiet(), Metrics: metrics}, apitest.New().API())
	w := httptest.NewRecorder()
	defer func() {
		if recover() != http.ErrAbortHandler || w.Body.String() != "gpuhost_servers 1\n" {
			t.Errorf("the answer goes on: %q", w.Body)
		}
	}()
	server.ServeAs(operator, w, httptest.NewRequest("GET", "/metrics", nil))
}
