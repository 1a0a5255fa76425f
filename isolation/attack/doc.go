// Package attack is what a hostile tenant tries, one line a try: control R6 of
// docs/specification.md.
//
//	make attack suite:  go test -v -run TestAttacks ./isolation/attack
//
// [Cases] is the table. isolation/attack/probe runs it inside an instance and
// prints what the kernel answered; the tests of this package make the instance
// with the real room and hold the answers against the table. Images that attack
// (hostile layers, configurations) are in the tests alone: what answers there is
// containerd, not the kernel.
//
// Network attacks are network's, input of the API is agent/e2e's, and controls
// broken from outside are isolation/audit's.
package attack
