// Package canary is what the agent asks a canary and what it answers: devices to
// try from inside an instance's cgroup, and what the kernel said to each.
//
//	v := canary.Visit{Cgroup: dir, Tries: canary.Tries{Root: nodes}}
//	err := canary.WriteVisit(w, v)
//	answer, err := canary.ReadAnswer(r, v.Tries)
//
// Both ends of the pipe use it. Neighbours: isolation/warden/canary/probe is the
// canary, isolation/warden/launch keeps it, isolation/audit judges what it found.
package canary

import "syscall"

// Node is a device to try, and where it lies.
type Node struct {
	Path         string
	Major, Minor uint32
}

// Tries are what one visit opens for reading and writing, in this order.
type Tries struct {
	Root   []Node // as host root: of all walls only the device programs stand
	Tenant []Node // as UID, without a capability
	UID    int    // user, and group, of the tenant's tries; never 0
}

// Visit is where to try.
type Visit struct {
	Cgroup string // its folder
	Tries
}

// Result is what opening one node for reading and writing came to. Errno 0 is
// success.
type Result struct {
	Path         string
	Major, Minor uint32
	Errno        syscall.Errno
}

// Answer is what all tries of a visit came to, each in the order of its tries.
type Answer struct {
	Root, Tenant []Result
}

// Denied says that the device program refused: EPERM. Every other answer means
// that it let the try through to file modes (EACCES) or the driver (ENXIO).
func (r Result) Denied() bool { return r.Errno == syscall.EPERM }
