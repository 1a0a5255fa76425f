package audit

import (
	"testing"
)

func TestCreatedTaskPasses(t *testing.T) {
	created := newHost(t).create(newLease(1, 0, 1))
	controls := created.audit()
	if ids := failed(controls); len(ids) > 0 {
		t.Errorf("controls %v fail before start:\n%s", ids, text(controls))
	}
	t.Log(text(controls))
}

func TestRunningTaskPasses(t *testing.T) {
	h := newHost(t)
	h.create(newLease(2, 2)).start()
	running := h.create(newLease(1, 0, 1)).start()
	controls := running.audit()
	if ids := failed(controls); len(ids) > 0 {
		t.Errorf("controls %v fail:\n%s", ids, text(controls))
	}
}
