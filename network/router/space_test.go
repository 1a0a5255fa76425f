package router

import (
	"fmt"
	"sync"
	"testing"

	"github.com/gpuhost/gpuhost/agent/spec"
)

// Whoever waits for the space of a VPC that is removed meanwhile gets the one that
// everybody gets then; and nothing is left of VPCs that are gone.
func TestSpacesEndWithTheirVPCs(t *testing.T) {
	k := &Kernel{spaces: map[spec.UID]*space{}}
	inside := make(map[spec.UID]*int)
	for i := range 3 {
		inside[spec.UID(fmt.Sprint("vpc", i))] = new(int)
	}
	var group sync.WaitGroup
	for vpc, n := range inside {
		for range 8 {
			group.Go(func() {
				for range 1000 {
					s := k.space(vpc)
					if *n++; *n != 1 { // the race detector looks, too
						t.Errorf("%d are in %s at once", *n, vpc)
					}
					*n--
					k.forget(vpc, s)
					s.mu.Unlock()
				}
			})
		}
	}
	group.Wait()
	if len(k.spaces) != 0 {
		t.Errorf("%d spaces are left", len(k.spaces))
	}
}
