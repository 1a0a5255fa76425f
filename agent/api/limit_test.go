package api_test

import (
	"net/http"
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
	server := newServer(apitest.New())
	for range 10 * api.RateOthers {
		w := ask(server, viewer, "GET", "/v1/version", "")
		if w.Code == http.StatusOK {
			continue
		}
		want(t, w, http.StatusTooManyRequests)
		if f := faultOf(t, w); w.Header().Get("Retry-After") != "1" || f.Code != "busy" || f.Hint == "" {
			t.Errorf("answer %+v, headers %v", f, w.Header())
		}
		return
	}
	t.Error("nothing was refused")
}
