package oci

import (
	"path"
	"strconv"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// driverTarget is where the driver's libraries and tools lie in a container:
// the place CUDA images look at.
const driverTarget = "/usr/local/nvidia"

// defaultShm is the size of /dev/shm where the lease names none.
const defaultShm = 64 * spec.Bytes(1<<20)

// mounts are all mounts of a container, in the order runc makes them. Each is
// nosuid and nodev, with the exceptions that device nodes need:
//
//   - the private nodes are nosuid,noexec: nodev would make them useless. They
//     are also read-only, which leaves the device writable and its mode alone: a
//     tenant that could chmod its node would fail its own audit;
//   - runc's own binds of /dev/null, zero, full, random, urandom and tty, and of
//     /dev/null over masked files, carry the flags of the host's /dev;
//   - the root file system gets its flags from containerd's overlayfs options.
//
// /tmp, /run and /var belong to the image and its disk limit.
func mounts(in Input) []specs.Mount {
	all := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: flags()},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "noexec", "strictatime", "mode=755", "size=65536k", "nr_inodes=16k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: flags("mode=1777", "size="+shmSize(in.Lease.Limits.Shm))},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: flags()},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: flags("ro")},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: flags("relatime", "ro")},
	}
	for _, name := range []string{"hosts", "hostname", "resolv.conf"} {
		source := path.Join(in.Paths.EtcDir(in.Lease.UID), name)
		all = append(all, bind(source, "/etc/"+name, flags("ro")...))
	}
	if in.Paths.DriverTree != "" {
		all = append(all, bind(in.Paths.DriverTree, driverTarget, "nosuid", "nodev", "ro"))
	}
	for _, node := range in.Nodes {
		source := path.Join(in.Paths.NodeDir(in.Lease.UID), node.Name)
		all = append(all, bind(source, "/dev/"+node.Name, "nosuid", "noexec", "ro"))
	}
	return all
}

// flags are the mount flags of what is neither run nor a device, and more.
func flags(more ...string) []string {
	return append([]string{"nosuid", "noexec", "nodev"}, more...)
}

func bind(source, target string, options ...string) specs.Mount {
	return specs.Mount{Destination: target, Type: "bind", Source: source, Options: append([]string{"bind"}, options...)}
}

func shmSize(size spec.Bytes) string {
	if size <= 0 {
		size = defaultShm
	}
	return strconv.FormatInt(int64(size), 10)
}
