// Package e2e holds the tests of the whole product on one machine: the real
// binary, containerd, runc, kernel and command line, with simulated GPUs, in the
// private namespaces of packaging/lab/hosttest.
//
// What a test wants is said through the command line, as a person would; what
// came of it is read from the kernel and from containerd's files, never from the
// agent's own store.
//
// The crash matrix kills the agent before and after every step of an
// instance's life.
package e2e
