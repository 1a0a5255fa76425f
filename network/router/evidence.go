package router

import (
	"slices"

	"github.com/gpuhost/gpuhost/network/ruleset"
)

// evidence is sets of the router's table as they were read from the kernel at one
// generation of its rules. Whoever changes a set counts the generation up. So what
// was read once holds for all instances of a VPC until somebody writes, and after a
// transaction of our own for the sets that it left alone: proving each of a hundred
// instances does not read a hundred thousand elements a hundred times.
type evidence struct {
	generation uint32
	sets       map[string]*ruleset.Set // nil: none of that name
}

// evident gives the named sets as they are in the kernel; without those that are
// not there. One that is exactly as wanted is the wanted one itself, so that it need
// not be compared again.
func (s *space) evident(wanted []*ruleset.Set) ([]*ruleset.Set, error) {
	generation, err := s.nft.Generation()
	if err != nil {
		return nil, err
	}
	if s.evidence.sets == nil || s.evidence.generation != generation {
		s.evidence = evidence{generation, map[string]*ruleset.Set{}}
	}
	found := make([]*ruleset.Set, 0, len(wanted))
	for _, want := range wanted {
		have, known := s.evidence.sets[want.Name]
		if !known {
			if have, err = s.nft.ReadSet(ruleset.INet, want.Name); err != nil {
				return nil, err
			}
		}
		if have != nil && ruleset.SetDiffers(want, have) == "" {
			have = want
		}
		s.evidence.sets[want.Name] = have
		if have != nil {
			found = append(found, have)
		}
	}
	return found, nil
}

// evidenceOf is evidence of a whole table that was read at a generation.
func evidenceOf(generation uint32, table *ruleset.State) evidence {
	e := evidence{generation, map[string]*ruleset.Set{}}
	if table == nil {
		return e
	}
	for _, set := range table.Sets {
		e.sets[set.Name] = set
	}
	return e
}

// after carries evidence over a transaction of our own, which left the kernel at a
// generation, unless somebody else wrote too.
func (e *evidence) after(generation uint32, changes []*ruleset.Changes) {
	if e.sets == nil || generation != e.generation+1 {
		*e = evidence{}
		return
	}
	e.generation = generation
	for _, c := range changes {
		if c.Table.Family == ruleset.INet && !e.without(c) {
			*e = evidence{}
			return
		}
	}
}

// without forgets the sets that a transaction changed; false when it changed all.
func (e *evidence) without(c *ruleset.Changes) bool {
	if c.NewTable || c.Replace != "" {
		return false
	}
	for _, set := range slices.Concat(c.AddSets, c.DeleteSets) {
		delete(e.sets, set.Name)
	}
	for _, delta := range slices.Concat(c.DropElements, c.AddElements) {
		delete(e.sets, delta.Set.Name)
	}
	return true
}
