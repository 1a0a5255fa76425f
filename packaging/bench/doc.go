// Package bench measures promises of docs/specification.md that need the whole
// product: an agent on a simulated DGX H100 in namespaces of its own, real
// containerd, real rules, and the peers beside it in the same run.
//
//	make bench BENCH=P1
//	GPUHOST_BENCH=full go test -run '^$' -bench P2 -benchtime 1x ./packaging/bench
//
// Each figure is printed with its unit, the machine and the load at that moment:
// a time taken on a busy machine is worth no more than its ratio to the peer.
// Promises about one part alone are benchmarks of that part's own package.
package bench
