package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReload: whoever reloads learns at once whether the files are right. Bad ones
// leave the old in force, are told until they are mended, and do not make the host
// unready: it does all that it did.
func TestReload(t *testing.T) {
	h := newHost(t)
	h.mustStart()
	good, err := os.ReadFile(h.settings)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, h.settings, string(good)+"[audit]\ninterval = \"7s\"\n[metrics]\nlisten = \"\"\n")
	out := h.expect(0, "config", "reload")
	if !strings.Contains(out.stderr, "metrics.listen is in force after a restart") {
		t.Errorf("a reload says %s", out)
	}
	writeFile(t, h.settings, string(good)+"[audit]\nintervall = \"9s\"\n")
	for _, from := range []string{h.settings + ":", "intervall", `"audit.interval"`, "hint:"} {
		if out := h.expect(2, "config", "reload"); !strings.Contains(out.stderr, from) {
			t.Errorf("nothing of %s in %s", from, out)
		}
	}
	if now := h.expect(0, "config", "show").stdout; !strings.Contains(now, `"7s"`) {
		t.Errorf("in force is\n%s", now)
	}
	if out := h.expect(3, "status"); !strings.Contains(out.stdout, "intervall") {
		t.Errorf("the status is %s", out)
	}
	if status, text := h.api("GET", "/readyz", "", ""); status != 200 {
		t.Errorf("with bad settings: %d %s", status, text)
	}
	writeFile(t, h.settings, string(good))
	h.expect(0, "config", "reload")
	h.expect(0, "status")

	dir := filepath.Join(h.root, "etc/spec.d")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "acme.yaml"), "{apiVersion: gpuhost/v1, kind: Tenant, metadata: {name: acme}, spec: {quotas: {}}}\n")
	if out := h.expect(2, "config", "reload"); !strings.Contains(out.stderr, "acme.yaml:1:") || !strings.Contains(out.stderr, `"quota"`) {
		t.Errorf("a bad file in spec.d: %s", out)
	}
	writeFile(t, filepath.Join(dir, "acme.yaml"), "{apiVersion: gpuhost/v1, kind: Tenant, metadata: {name: acme}, spec: {}}\n")
	h.expect(0, "config", "reload")
	h.expect(0, "get", "tenant", "acme")
	h.expect(0, "status")
}
