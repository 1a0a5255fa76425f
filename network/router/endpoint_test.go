package router

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/gpuhost/gpuhost/network/link"
)

// Where many instances go at once, a lane looks at the pin of an instance whose own
// lane takes it away: that leads nowhere, and is no failure of the one who looks.
func TestAPinThatGoesWhileItIsLookedAtLeadsNowhere(t *testing.T) {
	dir := t.TempDir()
	unmounted := filepath.Join(dir, "unmounted") // and not removed yet
	if err := os.WriteFile(unmounted, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"unmounted": unmounted, "removed": filepath.Join(dir, "removed")} {
		if leads, err := leadsTo(&space{}, link.State{Index: 1, Peer: 2}, path); leads || err != nil {
			t.Errorf("%s: %t, %v", name, leads, err)
		}
	}
}
