package drivers

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"

	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// exhaustiveLimit is how many candidates are still searched completely: all
// halves of 16 GPUs are 12,870 sets. Above it the best set is grown greedily.
const exhaustiveLimit = 16

// set is a set of GPUs, by their position in machine.all.
type set uint64

func (s set) size() int       { return bits.OnesCount64(uint64(s)) }
func (s set) with(i int) set  { return s | 1<<i }
func (s set) minus(o set) set { return s &^ o }
func (s set) each(do func(int)) { // in ascending order
	for rest := uint64(s); rest != 0; rest &= rest - 1 {
		do(bits.TrailingZeros64(rest))
	}
}

// machine is an inventory prepared for comparing sets of GPUs: devices in order
// of PCI address, so that ties fall to the lowest, and links as a matrix.
type machine struct {
	all      []gpu.Device
	links    [][]gpu.Link
	strength [][]int
}

func newMachine(inv gpu.Inventory) machine {
	m := machine{all: slices.Clone(inv.Devices)}
	slices.SortFunc(m.all, func(a, b gpu.Device) int {
		return cmp.Or(cmp.Compare(a.PCI, b.PCI), cmp.Compare(a.UUID, b.UUID))
	})
	m.all = m.all[:min(len(m.all), 64)] // the width of a set; no host has more
	position := make(map[gpu.UUID]int, len(m.all))
	for i, d := range m.all {
		position[d.UUID] = i
		m.links = append(m.links, make([]gpu.Link, len(m.all)))
		m.strength = append(m.strength, make([]int, len(m.all)))
	}
	for _, l := range inv.Links {
		a, hasA := position[l.A]
		b, hasB := position[l.B]
		if hasA && hasB {
			m.links[a][b], m.links[b][a] = l, l
			m.strength[a][b], m.strength[b][a] = strength(l), strength(l)
		}
	}
	return m
}

// strength orders links: any NVLink beats any PCIe path, more lanes beat fewer.
func strength(l gpu.Link) int {
	switch l.Kind {
	case gpu.LinkNVLink:
		return 100 * max(l.Lanes, 1)
	case gpu.LinkPIX:
		return 3
	case gpu.LinkNode:
		return 2
	case gpu.LinkSystem:
		return 1
	default:
		return 0
	}
}

func (m machine) where(want func(gpu.Device) bool) set {
	var found set
	for i, d := range m.all {
		if want(d) {
			found = found.with(i)
		}
	}
	return found
}

func (m machine) devices(s set) []gpu.Device {
	out := make([]gpu.Device, 0, s.size())
	s.each(func(i int) { out = append(out, m.all[i]) })
	return out
}

// worth is what a choice is compared by, in this order.
type worth struct {
	weakest     int // link strength between the two worst connected
	total       int // sum of link strengths
	nodes       int // NUMA nodes touched; fewer is better
	restTotal   int // sum of link strengths among what stays free
	restGrouped int // how much of what stays free sits together on NUMA nodes
}

func (w worth) betterThan(o worth) bool {
	return cmp.Or(
		cmp.Compare(w.weakest, o.weakest),
		cmp.Compare(w.total, o.total),
		cmp.Compare(o.nodes, w.nodes),
		cmp.Compare(w.restTotal, o.restTotal),
		cmp.Compare(w.restGrouped, o.restGrouped),
	) > 0
}

func (m machine) weigh(chosen, free set) worth {
	rest := free.minus(chosen)
	weakest, total := m.connection(chosen)
	_, restTotal := m.connection(rest)
	grouped := 0
	for _, n := range m.perNode(rest) {
		grouped += n * n
	}
	return worth{weakest, total, len(m.perNode(chosen)), restTotal, grouped}
}

func (m machine) connection(s set) (weakest, total int) {
	weakest = -1
	s.each(func(a int) {
		s.minus(1<<(a+1) - 1).each(func(b int) {
			total += m.strength[a][b]
			if weakest < 0 || m.strength[a][b] < weakest {
				weakest = m.strength[a][b]
			}
		})
	})
	return max(weakest, 0), total
}

func (m machine) perNode(s set) map[int]int {
	nodes := map[int]int{}
	s.each(func(i int) { nodes[m.all[i].NUMANode]++ })
	return nodes
}

// choose adds candidates to the required ones until there are count, so that
// the whole is worth most. Of equals the one with the lowest addresses wins.
func (m machine) choose(required, candidates, free set, count int) set {
	if candidates.size() > exhaustiveLimit {
		return m.grow(required, candidates, free, count)
	}
	var best set
	var bestWorth worth
	found := false
	m.combinations(required, candidates, count, func(s set) {
		if w := m.weigh(s, free); !found || w.betterThan(bestWorth) {
			best, bestWorth, found = s, w, true
		}
	})
	return best
}

// combinations visits every extension of base to count members, lowest
// positions first.
func (m machine) combinations(base, candidates set, count int, visit func(set)) {
	if base.size() == count {
		visit(base)
		return
	}
	rest := candidates
	candidates.each(func(i int) {
		rest = rest.minus(1 << i)
		if base.size()+1+rest.size() >= count {
			m.combinations(base.with(i), rest, count, visit)
		}
	})
}

// grow adds the best next GPU until there are enough, from every possible first.
func (m machine) grow(required, candidates, free set, count int) set {
	var best set
	var bestWorth worth
	candidates.each(func(first int) {
		s := required.with(first)
		for s.size() < count {
			s = m.extend(s, candidates.minus(s), free)
		}
		if w := m.weigh(s, free); best == 0 || w.betterThan(bestWorth) {
			best, bestWorth = s, w
		}
	})
	return best
}

func (m machine) extend(s, candidates, free set) set {
	var best set
	var bestWorth worth
	candidates.each(func(i int) {
		if w := m.weigh(s.with(i), free); best == 0 || w.betterThan(bestWorth) {
			best, bestWorth = s.with(i), w
		}
	})
	return best
}

func (m machine) reason(chosen, held, free set) string {
	text := fmt.Sprintf("%d of %d free", chosen.minus(held).size(), free.size())
	if held != 0 {
		text += fmt.Sprintf(", %d held already", held.size())
	}
	return text + ": " + m.describe(chosen)
}

// describe says how a set hangs together: "NVLink ×12 between all, NUMA node 0".
func (m machine) describe(s set) string {
	nodes := m.perNode(s)
	where := fmt.Sprintf("%d NUMA nodes", len(nodes))
	if len(nodes) == 1 {
		where = fmt.Sprintf("NUMA node %d", m.devices(s)[0].NUMANode)
	}
	if s.size() < 2 {
		return where
	}
	return m.weakestLink(s) + ", " + where
}

func (m machine) weakestLink(s set) string {
	weakest, _ := m.connection(s)
	var text string
	s.each(func(a int) {
		s.minus(1<<(a+1) - 1).each(func(b int) {
			if text == "" && m.strength[a][b] == weakest {
				text = linkText(m.links[a][b])
			}
		})
	})
	return text
}

func linkText(l gpu.Link) string {
	switch l.Kind {
	case gpu.LinkNVLink:
		return fmt.Sprintf("NVLink ×%d between all", l.Lanes)
	case gpu.LinkPIX:
		return "one PCIe bridge between all"
	case gpu.LinkNode:
		return "PCIe within a NUMA node at worst"
	default:
		return "PCIe across NUMA nodes at worst"
	}
}
