// Package runtime makes and ends containers with containerd and runc. It is
// the only importer of containerd's client.
//
//	supervisor := runtime.NewSupervisor(config) // only where no unit runs containerd
//	go supervisor.Run(ctx)
//	client, err := runtime.Open(config)         // isolation.Images, Containers and Tasks
//
// Each tenant has a containerd namespace of its own, so that no two share a
// file of an image. containerd, its shims and the tenants outlive this process:
// everything here finds again what a predecessor made, by name. Exit statuses
// do not outlive containerd; [Client.Exits] reports them the moment they are
// known, and unknown ones as unknown.
//
// What a container is granted is decided by isolation/oci, when it is made by
// isolation, how its cgroup is fenced and killed by isolation/cgroup.
package runtime
