package health

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gpuhost/gpuhost/agent/fault"
)

func TestJudgements(t *testing.T) {
	for _, row := range []struct {
		name string
		got  Result
		want State
		says string
	}{
		{"old kernel", judgeKernel("5.10.0-30-amd64"), Fail, "older than 5.15"},
		{"kernel without idmapped overlayfs", judgeKernel("5.15.0-100-generic"), Warn, "idmapped"},
		{"good kernel", judgeKernel("6.1.0-28-amd64"), Pass, "6.1"},
		{"a later major", judgeKernel("7.0.1"), Pass, "7.0"},
		{"no kernel at all", judgeKernel("plan9"), Fail, "not understood"},
		{"all controllers", judgeControllers("cpuset cpu io memory hugetlb pids rdma misc"), Pass, "memory"},
		{"no memory controller", judgeControllers("cpuset cpu io pids"), Fail, "memory"},
		{"roomy disk", judgeDisk("/var", 10, 2, 1<<30), Pass, "10 %"},
		{"inodes run out", judgeDisk("/var", 10, 90, 1<<30), Warn, "90 %"},
		{"full disk", judgeDisk("/var", 99, 2, 0), Fail, "99 %"},
	} {
		if row.got.State != row.want || !strings.Contains(row.got.Message, row.says) {
			t.Errorf("%s: %+v; want %s saying %q", row.name, row.got, row.want, row.says)
		}
		if row.got.State == Fail && row.got.Hint == "" && row.name != "no kernel at all" {
			t.Errorf("%s: a failure without a command that mends it", row.name)
		}
	}
}

func TestRuntimeOfOthersIsRefused(t *testing.T) {
	dir := t.TempDir()
	f := Facts{RuntimeDir: dir}
	if got := checkRuntime(t.Context(), f); got.State != Fail || !strings.Contains(got.Message, "containerd") {
		t.Errorf("an empty folder: %+v", got)
	}
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "runc"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if got := checkRuntime(t.Context(), f); got.State != Pass {
		t.Errorf("a whole folder: %+v", got)
	}
	if err := os.Chmod(filepath.Join(dir, "runc"), 0o777); err != nil {
		t.Fatal(err)
	}
	if got := checkRuntime(t.Context(), f); got.State != Fail || !strings.Contains(got.Message, "written by others") {
		t.Errorf("a runc that anybody may replace: %+v", got)
	}
}

func TestAnOpenNeighbourhoodIsAWarning(t *testing.T) {
	if got := checkProtected(t.Context(), Facts{}); got.State != Warn || !strings.Contains(got.Hint, "protected") {
		t.Errorf("nothing is protected: %+v", got)
	}
	f := Facts{Protected: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	if got := checkProtected(t.Context(), f); got.State != Pass {
		t.Errorf("a network is protected: %+v", got)
	}
}

func TestForeignDropIsNamedWithTheCommandThatMendsIt(t *testing.T) {
	f := Facts{ForeignDrops: func(context.Context) ([]string, error) { return []string{"ip filter FORWARD"}, nil }}
	got := checkForeignRules(t.Context(), f)
	if got.State != Warn || !strings.Contains(got.Message, "ip filter FORWARD") || !strings.Contains(got.Hint, "nft insert rule ip filter FORWARD") {
		t.Errorf("got %+v", got)
	}
}

func TestWhatTheAgentFailsAtIsNamedWithItsHint(t *testing.T) {
	found := map[string]error{}
	f := Facts{Problems: func() map[string]error { return found }}
	if got := checkConvergence(t.Context(), f); got.State != Pass {
		t.Errorf("nothing: %+v", got)
	}
	found["network acme/default"] = errors.New("load rules: no buffer space")
	found["metrics"] = fault.New(fault.Conflict, "listen", "the port is taken").WithHint("set metrics.listen")
	got := checkConvergence(t.Context(), f)
	want := "metrics: listen: the port is taken; network acme/default: load rules: no buffer space"
	if got.State != Fail || got.Message != want || got.Hint != "set metrics.listen" {
		t.Errorf("got %+v", got)
	}
}

func TestRunChoosesAndRefuses(t *testing.T) {
	f := Facts{Lib: t.TempDir(), Parts: func(context.Context) map[string]error {
		return map[string]error{"containerd": errors.New("connection refused"), "nvml-helper": nil}
	}}
	got, err := Run(t.Context(), f, []string{"parts"})
	if err != nil || len(got) != 1 || got[0].State != Fail || got[0].Name != "parts" {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := Run(t.Context(), f, []string{"part"}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("an unknown check: %v", err)
	}
}
