package store

import (
	"errors"
	"slices"
	"testing"

	"github.com/gpuhost/gpuhost/agent/spec"
)

// What goes and what comes in its place is one write and one decision.
func TestDropsAreDecidedWithWhatIsApplied(t *testing.T) {
	s := fresh(t)
	old := apply(t, s, spec.SourceFile, secret("acme", "old", nil))[0].Object
	next := []*spec.Object{secret("acme", "new", nil)}
	refused := errors.New("no")
	_, err := s.Apply(t.Context(), spec.SourceFile, next, ApplyOptions{
		Drop: []*spec.Object{old}, Check: func([]*spec.Object) error { return refused },
	})
	if now, _ := s.GetUID(old.Metadata.UID); !errors.Is(err, refused) || now.Metadata.DeletedAt != nil {
		t.Fatalf("refused with %v, and old has gone", err)
	}
	got, err := s.Apply(t.Context(), spec.SourceFile, next, ApplyOptions{
		Drop: []*spec.Object{old},
		Check: func(after []*spec.Object) error {
			going := slices.ContainsFunc(after, func(o *spec.Object) bool { return o.Metadata.Name == "old" && o.Metadata.DeletedAt != nil })
			if !going || len(after) != 2 {
				t.Errorf("the check saw %d objects, old is going: %t", len(after), going)
			}
			return nil
		},
	})
	if err != nil || len(got) != 2 || got[0].Change != Created || got[1].Change != Deleted {
		t.Fatalf("%+v, %v", got, err)
	}
	stored, err := again(t, s).GetUID(old.Metadata.UID)
	if err != nil || stored.Metadata.DeletedAt == nil || stored.Metadata.Generation != old.Metadata.Generation+1 {
		t.Errorf("stored is %+v, %v", stored, err)
	}
}
