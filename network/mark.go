package network

import (
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/gpuhost/gpuhost/network/ruleset"
)

// A connection's mark holds which policies let it pass:
//
//	31      30 … 16         15      14 … 0
//	class   egress epoch    class   ingress epoch
//	        of the local    ^       of the local destination's groups
//	        source's groups └ set: the remote end is on the internet
//
// A chain passes a packet whose epoch is the policy's present one and looks at
// the rules otherwise. So a changed policy takes effect on live flows with the
// transaction that gives it a new epoch: what is still allowed is stamped anew by
// its next packet, the rest stops. Epoch 0 is "never looked at".
const (
	epochBits = 0x7fff
	classBit  = 0x8000
	halfMask  = 0xffff
)

// side is one half of the mark and the direction of policy it stands for.
type side struct {
	prefix string // of chains and sets
	shift  uint
	remote ruleset.Field
}

// inbound and outbound are the two directions a policy has.
func inbound() side  { return side{"in", 0, ruleset.CtOriginator} }
func outbound() side { return side{"eg", 16, ruleset.CtResponder} }

// half is 0 for the mark's low half, 1 for its high one.
func (s side) half() int { return int(s.shift / 16) }

func (s side) match(mask, value uint32) ruleset.Match {
	return ruleset.Match{Field: ruleset.CtMark, Mask: mask << s.shift, Value: ruleset.Word(value << s.shift)}
}

func (s side) stamp(value uint32) ruleset.SetMark {
	return ruleset.SetMark{Keep: ^uint32(halfMask << s.shift), Or: value << s.shift}
}

// Marks are the epochs in force, as read back from the kernel.
type Marks struct {
	Generation string           `json:"generation"`
	Epoch      uint64           `json:"epoch"`    // the last one given out, counted on for ever
	Policies   map[string]Stamp `json:"policies"` // by chain: "in_1a2b3c4d"
}

func (m Marks) equal(other Marks) bool {
	return m.Generation == other.Generation && m.Epoch == other.Epoch && maps.Equal(m.Policies, other.Policies)
}

// FlowMark selects connections whose mark equals Mark under Mask.
type FlowMark struct {
	Mark uint32 `json:"mark"`
	Mask uint32 `json:"mask"`
}

// Stamp is one policy in force and since which epoch.
type Stamp struct {
	Digest string `json:"digest"` // of the rules and of the members of the groups they name
	Epoch  uint64 `json:"epoch"`
}

// tag is what of an epoch fits the mark: 1 … 32,767, then from 1 again.
func tag(epoch uint64) uint32 { return uint32((epoch-1)%epochBits) + 1 }

func (s Stamp) comment() string { return fmt.Sprintf("policy %s epoch %d", s.Digest, s.Epoch) }
func (m Marks) comment() string { return fmt.Sprintf("generation %s epoch %d", m.Generation, m.Epoch) }
func parseComment(text, word string) (string, uint64, bool) {
	fields := strings.Fields(text)
	if len(fields) != 4 || fields[0] != word || fields[2] != "epoch" {
		return "", 0, false
	}
	epoch, err := strconv.ParseUint(fields[3], 10, 64)
	return fields[1], epoch, err == nil
}

// MarksOf reads the epochs out of a table's comments. An absent table has none.
func MarksOf(state *ruleset.State) Marks {
	marks := Marks{Policies: map[string]Stamp{}}
	if state == nil {
		return marks
	}
	for _, chain := range state.Chains {
		if len(chain.Rules) == 0 || chain.Rules[0].Comment == "" {
			continue
		}
		if digest, epoch, ok := parseComment(chain.Rules[0].Comment, "policy"); ok {
			marks.Policies[strings.TrimSuffix(chain.Name, lanSuffix)] = Stamp{digest, epoch}
		}
	}
	if g := state.Chain(generationChain); g != nil && len(g.Rules) > 0 {
		marks.Generation, marks.Epoch, _ = parseComment(g.Rules[0].Comment, "generation")
	}
	return marks
}

// allocation gives policies their epochs: the present one while the digest
// stays, the next free one when it changed.
type allocation struct {
	next Marks
	// used are the tags in force, also of policies that change: until the next
	// transaction flows are stamped with them. Only where some come round again.
	used map[uint32]bool
	// stale are the marks of tags given out again after a whole round: flows
	// that still bear them must be forgotten first.
	stale []FlowMark
}

func newAllocation(have Marks, wanted map[string]string) *allocation {
	a := &allocation{next: Marks{Epoch: have.Epoch, Policies: make(map[string]Stamp, len(wanted))}, used: map[uint32]bool{}}
	round := have.Epoch+uint64(len(wanted)) > epochBits
	for chain, stamp := range have.Policies {
		if round {
			a.used[tag(stamp.Epoch)] = true
		}
		if stamp.Epoch != 0 && stamp.Digest == wanted[chain] {
			a.next.Policies[chain] = stamp
		}
	}
	return a
}

// stamp gives a policy chain its epoch. The order of calls must be the same for
// the same input.
func (a *allocation) stamp(s side, chain, digest string) Stamp {
	if stamp, kept := a.next.Policies[chain]; kept {
		return stamp
	}
	a.next.Epoch++
	for a.used[tag(a.next.Epoch)] {
		a.next.Epoch++
	}
	stamp := Stamp{digest, a.next.Epoch}
	a.used[tag(stamp.Epoch)] = true
	a.next.Policies[chain] = stamp
	if stamp.Epoch > epochBits {
		a.stale = append(a.stale, FlowMark{Mark: tag(stamp.Epoch) << s.shift, Mask: epochBits << s.shift})
	}
	return stamp
}
