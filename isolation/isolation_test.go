package isolation

import "testing"

func TestNodesBelongToTheUserThatRuns(t *testing.T) {
	ids := IDRange{Start: 1 << 20, Size: 1 << 16}
	for user, want := range map[string]uint32{
		"": ids.Start, "0": ids.Start, "1000": ids.Start + 1000, "1000:100": ids.Start + 1000, "nobody": ids.Start,
		"65535": ids.Start + 65535, "65536": ids.Start, "99999999999": ids.Start,
	} {
		got := Lease{User: user, IDs: ids}.NodeOwner()
		if got != want || !ids.Contains(got) {
			t.Errorf("user %q owns as %d, want %d", user, got, want)
		}
	}
	if ids.Contains(ids.Start-1) || ids.Contains(ids.Start+ids.Size) {
		t.Error("a neighbour's id counts as the tenant's")
	}
}
