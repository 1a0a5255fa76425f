package api_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gpuhost/gpuhost/agent/api"
)

var update = flag.Bool("update", false, "rewrite docs/reference/api.md")

// TestReference keeps docs/reference/api.md what the routes are.
func TestReference(t *testing.T) {
	var want bytes.Buffer
	if err := api.WriteReference(&want); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("..", "..", "docs", "reference", "api.md")
	if *update {
		if err := os.WriteFile(path, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.String(), string(have)); diff != "" {
		t.Errorf("out of date, run with -update (-want +have):\n%s", diff)
	}
}
