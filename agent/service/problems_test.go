package service

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/reconcile"
)

func TestProblemsComeWithTheNextCommand(t *testing.T) {
	since := time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)
	got := Problems([]reconcile.Problem{
		{Name: "host", Err: errors.New("load rules: no buffer space"), Since: since},
		{Name: "gpus", Err: errors.Join(errors.New("scrub a"), errors.New("scrub b")), Since: since},
		{Name: "metrics", Err: fault.New(fault.Conflict, "listen", "the port is taken").WithHint("set metrics.listen"), Since: since},
	})
	want := []api.Problem{
		{Name: "host", Message: "load rules: no buffer space", Hint: "gpuhost doctor convergence", Since: since},
		{Name: "gpus", Message: "scrub a; scrub b", Hint: "gpuhost doctor convergence", Since: since},
		{Name: "metrics", Message: "listen: the port is taken", Hint: "set metrics.listen", Since: since},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
