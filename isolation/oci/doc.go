// Package oci builds the OCI runtime specification of an instance's container.
//
// It starts from nothing and adds what is known, instead of starting from a
// default and taking away: no hook, no device, no mount and no capability gets
// in that is not written here. Nothing of the image decides more than the
// tenant's own process: its arguments, environment, user and working directory.
// What a specification came to in the kernel is read back before start.
//
//	user, err := oci.ResolveUser(config.User, accounts)
//	built, err := oci.Build(oci.Input{Lease: lease, Image: config, User: user, …})
//
// It does not read the kernel back (isolation/audit does) and does not talk to
// containerd (isolation/runtime does).
package oci
