package resolver

import (
	"testing"

	"pgregory.net/rapid"
)

// Whatever VPCs take and give back: all places are accounted for, none has more than
// its share of what was left to others when it took the last, and one that has none
// gets one while there is any.
func TestSlotsAreShared(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := slots{free: forwardsInAll}
		have := make([]int, rapid.IntRange(1, 40).Draw(t, "VPCs"))
		for range rapid.IntRange(1, 60).Draw(t, "turns") {
			v := rapid.IntRange(0, len(have)-1).Draw(t, "VPC")
			if rapid.Bool().Draw(t, "greedy") {
				for s.take(&have[v]) {
					if left := s.free; (have[v]-1)*slotShare > left {
						t.Fatalf("one VPC has %d places and leaves %d", have[v], left)
					}
				}
			} else if have[v] > 0 {
				s.give(&have[v])
			}
			sum := s.free
			for _, n := range have {
				sum += n
			}
			if sum != forwardsInAll {
				t.Fatalf("%d places in all", sum)
			}
			var newcomer int
			if took := s.take(&newcomer); took != (s.free+newcomer > 0) {
				t.Fatalf("%d free, and a newcomer has %d", s.free, newcomer)
			}
			if newcomer > 0 {
				s.give(&newcomer)
			}
		}
	})
}

func TestGreedyVPCsLeaveWhatOthersNeed(t *testing.T) {
	s := slots{free: forwardsInAll}
	for n := 1; ; n++ {
		var greedy int
		for s.take(&greedy) {
		}
		if n == 1 && greedy != 114 || n == 8 && s.free < 390 || n <= 40 && greedy == 0 {
			t.Fatalf("greedy VPC %d has %d and leaves %d", n, greedy, s.free)
		}
		if greedy == 0 {
			return
		}
	}
}
