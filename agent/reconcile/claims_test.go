package reconcile

import (
	"fmt"
	"sync"
	"testing"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
)

// Instances of a new tenant start side by side: their lanes choose its range at the
// same time, and all must come to the same one. With two, who runs in the one is
// restarted by the next look that finds the other.
func TestATenantHasOneRangeHoweverManyChooseIt(t *testing.T) {
	b := newBench(t)
	b.run()
	for i := range 50 {
		tenant := &spec.Object{Kind: spec.KindTenant, Metadata: spec.Metadata{Name: "acme", UID: spec.UID(fmt.Sprint("tenant", i))}}
		var mu sync.Mutex
		chosen := make(map[isolation.IDRange]bool)
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				ids, err := b.loop.committing().ids(t.Context(), tenant)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				chosen[ids] = true
			})
		}
		group.Wait()
		if len(chosen) != 1 {
			t.Fatalf("one tenant has the ranges %v", chosen)
		}
	}
}
