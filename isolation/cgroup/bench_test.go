package cgroup

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/gpuhost/gpuhost/agent/spec"
)

func BenchmarkMake(b *testing.B) {
	tree, _ := newTree(b)
	for b.Loop() {
		uid := spec.NewUID()
		if err := tree.Make(b.Context(), lease(string(uid), 0, 1)); err != nil {
			b.Fatal(err)
		}
		if err := tree.Remove(b.Context(), uid); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFence reports the share of P9 that is ours: the order until every
// new open is refused.
func BenchmarkFence(b *testing.B) {
	tree, paths := newTree(b)
	l := lease("aaaaaaaa", 0)
	leaf := withLeaf(b, tree, paths, l)
	tenant := startOpener(b, leaf)
	node := filepath.Join(makeNodes(b), "nvidia0")
	var took []time.Duration
	for b.Loop() {
		b.StopTimer()
		if err := tree.Make(b.Context(), l); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		from := time.Now()
		if err := tree.Fence(b.Context(), l.UID); err != nil {
			b.Fatal(err)
		}
		if got := tenant.ask(node); got != "EPERM" {
			b.Fatalf("open behind the fence: %s", got)
		}
		took = append(took, time.Since(from))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}

// BenchmarkExcess is the interpretation of one program, part of every audit.
func BenchmarkExcess(b *testing.B) {
	rules := grant(0, 1, 2, 3, 4, 5, 6, 7)
	insns := assemble(b, rules)
	for b.Loop() {
		if excess, err := Excess(insns, func(a Access) bool { return Allows(rules, a) }); err != nil || len(excess) > 0 {
			b.Fatal(excess, err)
		}
	}
}
