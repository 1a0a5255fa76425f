package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// TestAnAuditFitsATerminal: what passes takes one line of bounded width, what does
// not is told whole.
func TestAnAuditFitsATerminal(t *testing.T) {
	long := strings.Repeat("0123456789", 8)
	reports := []api.AuditReport{{
		Object: spec.Ref{Kind: spec.KindInstance, Tenant: "acme", Name: "a"},
		Controls: []spec.Control{
			{ID: "I1", Name: "namespaces", Pass: true, Expected: long, Found: long},
			{ID: "I2", Name: "mounts", Expected: long, Found: "none"},
			{ID: "D3", Name: "nodes", Unknown: true, Expected: "refused", Found: "nobody could look"},
		},
	}}
	var out bytes.Buffer
	auditTable(reports).write(&out, painter(false))
	want := `INSTANCE   CONTROL   WHAT         RESULT     FOUND
acme/a     I1        namespaces   pass       ` + long[:59] + `…
acme/a     I2        mounts       FAIL       none
                                  expected   ` + long + `
acme/a     D3        nodes        unknown    nobody could look
                                  expected   refused
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +have):\n%s", diff)
	}
}
