package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation/warden/canary"
)

// A tenant that has used up what it may have is audited as everybody else, and
// lives on: the canary is none of its processes. A frozen leaf is the hardest of
// limits, nothing in it runs at all, and the one that needs no controller.
func TestTenantAtItsLimitsPasses(t *testing.T) {
	victim := newHost(t).create(newLease(1, 0, 1)).start()
	leaf := filepath.Join(victim.paths.CgroupMount, victim.paths.TaskCgroup(victim.lease.UID))
	victim.must(os.WriteFile(filepath.Join(leaf, "cgroup.freeze"), []byte("1"), 0))
	full := fmt.Sprint(len(victim.pids()))
	if err := os.WriteFile(filepath.Join(leaf, "pids.max"), []byte(full), 0); err == nil {
		victim.lease.Limits.Pids = int64(len(victim.pids()))
	} else {
		t.Logf("frozen alone: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	controls, err := victim.auditor.Audit(ctx, victim.lease, victim.pid)
	victim.must(err)
	if ids := failed(controls); len(ids) > 0 {
		t.Errorf("controls %v fail:\n%s", ids, text(controls))
	}
	if !slices.Contains(victim.pids(), victim.pid) {
		t.Error("the audit ended the task")
	}
}

func (v *task) pids() []int {
	v.t.Helper()
	pids, err := v.tree.Threads(v.t.Context(), v.lease.UID)
	v.must(err)
	return pids
}

// noCanary is one that cannot run.
type noCanary struct{}

func (noCanary) Canary(context.Context, spec.UID, canary.Tries) (canary.Answer, error) {
	return canary.Answer{}, errors.New("fork: resource temporarily unavailable")
}

// A canary that could not run is no finding, which would fence an instance of which
// nothing bad is known, and no proof. What else is wrong is reported all the same.
func TestCanaryThatCannotRunIsUnknown(t *testing.T) {
	victim := newHost(t).create(newLease(1, 0, 1))
	victim.auditor.config.Canary = noCanary{}
	for _, c := range victim.audit() {
		if c.Pass == (c.ID == "D3") || c.Unknown != (c.ID == "D3") {
			t.Errorf("%+v", c)
		}
	}
	victim.must(os.Chmod(victim.node("nvidia0"), 0o666))
	if diff := cmp.Diff([]string{"D3", "D4"}, failed(victim.audit())); diff != "" {
		t.Errorf("with a finding beside it (-want +got):\n%s", diff)
	}
}
