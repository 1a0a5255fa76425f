package audit

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// One visit sees both walls broken: a GPU's node that the outer program lets
// through, and a neighbour's that its file modes leave open to the tenant.
func TestOneVisitSeesBothWalls(t *testing.T) {
	h := newHost(t)
	h.create(newLease(2, 2))
	victim := h.create(newLease(1, 0)).start()
	neighbour := filepath.Join(h.paths.NodeDir(newLease(2).UID), "nvidia2")
	for dir := filepath.Dir(neighbour); dir != "/"; dir = filepath.Dir(dir) {
		h.must(os.Chmod(dir, 0o755))
	}
	h.must(os.Chmod(neighbour, 0o666))
	if controls := victim.audit(); len(failed(controls)) > 0 {
		t.Fatalf("with the program in force:\n%s", text(controls))
	}
	wider := victim.lease
	wider.GPUs = append(slices.Clone(wider.GPUs), newLease(1, 2).GPUs...)
	h.must(h.tree.Make(t.Context(), wider))
	controls := victim.audit()
	if !slices.Contains(failed(controls), canaryControl) {
		t.Fatalf("D3 passed:\n%s", text(controls))
	}
	for _, want := range []string{"195:2 answered ENXIO", "as the tenant, another's 195:2 answered ENXIO"} {
		if !strings.Contains(text(controls), want) {
			t.Errorf("%q is not found:\n%s", want, text(controls))
		}
	}
}
