// Package cgroup keeps the parent cgroup of each instance and the agent's own
// device program on it.
//
//	tree, err := cgroup.New(paths, uvmMajor)
//	err = tree.Make(ctx, lease)      // before runc makes its leaf below
//	err = tree.Fence(ctx, lease.UID) // from here on every open of a device is refused
//	err = tree.Kill(ctx, lease.UID)
//	err = tree.Remove(ctx, lease.UID)
//
// Only cgroup v2 is spoken. The layout, below the mount of cgroup v2:
//
//	/gpuhost-<hostid>        ours; controllers enabled for the children
//	└── <uid>                the parent: carries the outer device program
//	    ├── task             runc's leaf: carries runc's own ("inner") program
//	    └── canary           where the audit tries nodes, apart from the task's limits
//
// The kernel asks every program from the leaf up to the root, and one refusal
// is enough. So the outer program takes away what runc adds to the inner one
// whatever the specification says: mknod of any device, and /dev/net/tun.
//
// Device programs are assembled, compared and interpreted here, so that
// package audit can say what an attached program lets through instead of
// trusting who attached it. Neighbours: isolation (its port Cgroups),
// isolation/audit (reads [Tree.Effective]).
package cgroup
