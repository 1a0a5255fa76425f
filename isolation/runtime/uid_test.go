package runtime

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
)

// The folder of no uid is that of all instances.
func TestWhatIsNoUIDIsDeletedNowhere(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "aaaaaaaa", "hosts")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	c := &Client{config: Config{Paths: isolation.Paths{Etc: dir, IO: dir}}}
	for _, uid := range []spec.UID{"", ".", "x/.."} {
		for name, err := range map[string]error{
			"Delete":     c.Delete(t.Context(), "acme", uid, isolation.KeepDisk),
			"DeleteTask": c.DeleteTask(t.Context(), "acme", uid),
		} {
			if !fault.Is(err, fault.Internal) {
				t.Errorf("%s of %q: %v", name, uid, err)
			}
		}
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}
