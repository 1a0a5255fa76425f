package router

import (
	"slices"

	"github.com/gpuhost/gpuhost/network"
	"github.com/gpuhost/gpuhost/network/ruleset"
)

// evidence is chains and sets of the router's table as they were read from the
// kernel at one generation of its rules. Whoever changes one counts the generation
// up. So what was read once holds for all instances of a VPC until somebody writes,
// and after a transaction of our own for what that left alone: proving each of a
// hundred instances does not read a hundred thousand elements a hundred times.
type evidence struct {
	generation uint32
	chains     map[string]*ruleset.ChainState // nil: none of that name
	sets       map[string]*ruleset.Set
}

// evidenceOf is the evidence of a whole table that was read at a generation.
func evidenceOf(generation uint32, table *ruleset.State) evidence {
	e := evidence{generation, map[string]*ruleset.ChainState{}, map[string]*ruleset.Set{}}
	if table == nil {
		return e
	}
	for _, chain := range table.Chains {
		e.chains[chain.Name] = chain
	}
	for _, set := range table.Sets {
		e.sets[set.Name] = set
	}
	return e
}

// evident gives the named chains and sets as they are in the kernel, without those
// that are not there.
func (s *space) evident(what network.Bearing) (*ruleset.State, error) {
	generation, err := s.nft.Generation()
	if err != nil {
		return nil, err
	}
	if s.evidence.sets == nil || s.evidence.generation != generation {
		s.evidence = evidenceOf(generation, nil)
	}
	found := &ruleset.State{}
	for _, name := range what.Chains {
		chain, err := s.evidentChain(name)
		if err != nil {
			return nil, err
		}
		if chain != nil {
			found.Chains = append(found.Chains, chain)
		}
	}
	for _, want := range what.Sets {
		set, err := s.evidentSet(want)
		if err != nil {
			return nil, err
		}
		if set != nil {
			found.Sets = append(found.Sets, set)
		}
	}
	return found, nil
}

func (s *space) evidentChain(name string) (*ruleset.ChainState, error) {
	if known, there := s.evidence.chains[name]; there {
		return known, nil
	}
	read, err := s.nft.ReadChains(ruleset.INet, name)
	if err == nil {
		s.evidence.chains[name] = read.Chain(name)
	}
	return read.Chain(name), err
}

// evidentSet gives the wanted set itself where the kernel's is exactly that, so that
// it need not be compared again.
func (s *space) evidentSet(want *ruleset.Set) (*ruleset.Set, error) {
	have, known := s.evidence.sets[want.Name]
	if !known {
		var err error
		if have, err = s.nft.ReadSet(ruleset.INet, want.Name); err != nil {
			return nil, err
		}
	}
	if have != nil && ruleset.SetDiffers(want, have) == "" {
		have = want
	}
	s.evidence.sets[want.Name] = have
	return have, nil
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
		if c.Table.Family == ruleset.INet {
			e.without(c)
		}
	}
}

// without forgets what a transaction changed.
func (e *evidence) without(c *ruleset.Changes) {
	if c.NewTable || c.Replace != "" {
		*e = evidence{}
		return
	}
	for _, set := range slices.Concat(c.AddSets, c.DeleteSets) {
		delete(e.sets, set.Name)
	}
	for _, delta := range slices.Concat(c.DropElements, c.AddElements) {
		delete(e.sets, delta.Set.Name)
	}
	for _, chain := range slices.Concat(c.AddChains, c.SetPolicy, c.Fill) {
		delete(e.chains, chain.Name)
	}
	for _, name := range c.Flush {
		delete(e.chains, name)
	}
}
