// Package audit reads the isolation of a task back from the kernel: what is in
// force, not what was asked for.
//
//	auditor := audit.New(audit.Config{Paths: paths, Cgroups: tree, Canary: launcher})
//	controls, err := auditor.Audit(ctx, lease, pid)
//
// Each control of docs/isolation.md becomes one [spec.Control]: what the lease
// demands, what the kernel says, and whether that is the same. Reading
// (read_*.go) and judging (judge_*.go) are apart: judging is pure and sees only
// [Facts]. What could not be read has failed, with the reason as what was found.
//
// All controls hold from the moment a task is created: runc sets namespaces,
// mounts, capabilities, no_new_privs and seccomp before it waits for start. So
// the same audit runs before start and afterwards.
//
// A tenant owns the files below /proc/PID/root and every process name. Its paths
// are opened with openat2 inside its root, without following a link, and what
// it wrote is only ever compared, never parsed for more than its type.
//
// Neighbours: isolation (its port Auditor), isolation/cgroup (reads and interprets
// device programs), isolation/warden (the canary).
package audit
