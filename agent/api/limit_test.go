package api_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/api/apitest"
)

func TestRateOfOneCaller(t *testing.T) {
	now := time.Unix(0, 0)
	limiter := api.NewLimiter(func() time.Time { return now })
	passed := func(uid uint32) (n int) {
		for limiter.Enter(uid) {
			limiter.Leave(uid)
			n++
		}
		return n
	}
	if got := passed(1000); got != 2*api.RateOthers {
		t.Errorf("burst of %d, want %d", got, 2*api.RateOthers)
	}
	if !limiter.Enter(1001) {
		t.Error("one caller's burst is another's loss")
	}
	now = now.Add(time.Second)
	if got := passed(1000); got != api.RateOthers {
		t.Errorf("%d in the second after, want %d", got, api.RateOthers)
	}
}

func TestRequestsInFlight(t *testing.T) {
	now := time.Unix(0, 0)
	limiter := api.NewLimiter(func() time.Time { return now })
	n := 0
	for limiter.Enter(1000) {
		n++
		now = now.Add(time.Second)
	}
	if n != 64 {
		t.Errorf("%d requests at a time, want 64", n)
	}
	limiter.Leave(1000)
	if !limiter.Enter(1000) {
		t.Error("a place that was given back is not free")
	}
}

func TestTooManyRequests(t *testing.T) {
	for path, until := range map[string]int{"/v1/version": http.StatusOK, "/no/such/path": http.StatusNotFound} {
		server := newServer(apitest.New())
		w := ask(server, viewer, "GET", path, "")
		for range 10 * api.RateOthers {
			if w.Code != until {
				break
			}
			w = ask(server, viewer, "GET", path, "")
		}
		want(t, w, http.StatusTooManyRequests)
		if f := faultOf(t, w); w.Header().Get("Retry-After") != "1" || f.Code != "busy" || f.Hint == "" {
			t.Errorf("%s: answer %+v, headers %v", path, f, w.Header())
		}
	}
}

// trickle is a body that never ends by itself; begun is closed at its first read.
type trickle struct {
	begun chan struct{}
	*io.PipeReader
}

func (b trickle) Read(into []byte) (int, error) {
	close(b.begun)
	return b.PipeReader.Read(into)
}

func TestOneLargeBodyOfACallerAtATime(t *testing.T) {
	server := newServer(apitest.New())
	reader, writer := io.Pipe()
	body, answered := trickle{make(chan struct{}), reader}, make(chan int)
	go func() {
		w := httptest.NewRecorder()
		server.ServeAs(acme, w, httptest.NewRequest("POST", "/v1/apply", body))
		answered <- w.Code
	}()
	<-body.begun
	small := `{"objects": [{"kind": "Network", "metadata": {"tenant": "acme", "name": "lab"}, "spec": {"cidr": "10.0.0.0/16"}}]}`
	large := small + strings.Repeat(" ", 1<<20)
	want(t, ask(server, acme, "POST", "/v1/plan", large), http.StatusTooManyRequests)
	want(t, ask(server, acme, "POST", "/v1/plan", small), http.StatusOK)
	want(t, ask(server, operator, "POST", "/v1/plan", large), http.StatusOK)
	writer.Close()
	if code := <-answered; code != http.StatusUnprocessableEntity {
		t.Errorf("the cut body was answered %d", code)
	}
	want(t, ask(server, acme, "POST", "/v1/plan", large), http.StatusOK)
}

func TestLargeBodiesOfAllCallers(t *testing.T) {
	limiter := api.NewLimiter(time.Now)
	n := uint32(0)
	for limiter.Take(1000+n, 64<<20) {
		n++
	}
	if n != 4 {
		t.Errorf("%d folders at a time, want 4", n)
	}
	limiter.Give(1000, 64<<20)
	if !limiter.Take(1000, 64<<20) {
		t.Error("a place that was given back is not free")
	}
}
