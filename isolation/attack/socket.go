package attack

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// sockets: families and protocols that load modules or speak with the kernel.
func sockets() []Case {
	var cases []Case
	for _, s := range []struct {
		name                   string
		family, kind, protocol int
	}{
		{"AF_PACKET", unix.AF_PACKET, unix.SOCK_RAW, 0},
		{"AF_ALG", unix.AF_ALG, unix.SOCK_SEQPACKET, 0},
		{"AF_VSOCK", unix.AF_VSOCK, unix.SOCK_STREAM, 0},
		{"AF_XDP", unix.AF_XDP, unix.SOCK_RAW, 0},
		{"AF_KEY", unix.AF_KEY, unix.SOCK_RAW, 2},
		{"AF_BLUETOOTH", unix.AF_BLUETOOTH, unix.SOCK_RAW, 0},
		{"AF_TIPC", unix.AF_TIPC, unix.SOCK_STREAM, 0},
		{"AF_RDS", unix.AF_RDS, unix.SOCK_SEQPACKET, 0},
		{"AF_CAN", unix.AF_CAN, unix.SOCK_RAW, 1},
		{"AF_SMC", 43, unix.SOCK_STREAM, 0},
		{"AF_NFC", unix.AF_NFC, unix.SOCK_SEQPACKET, 0},
		{"AF_QIPCRTR", 42, unix.SOCK_DGRAM, 0},
		{"AF_PPPOX", unix.AF_PPPOX, unix.SOCK_DGRAM, 0},
		{"raw IPv4", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW},
		{"raw IPv4 ICMP", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP},
		{"raw IPv6", unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_RAW},
		{"SCTP", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP},
		{"DCCP", unix.AF_INET, 6, 33},
		{"MPTCP", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP},
		{"UDPLITE", unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE},
		{"netlink xfrm", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_XFRM},
		{"netlink sock_diag", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_SOCK_DIAG},
		{"netlink audit", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT},
		{"netlink connector", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_CONNECTOR},
		{"netlink netfilter", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER},
		{"netlink kobject_uevent", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_KOBJECT_UEVENT},
		{"netlink generic", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_GENERIC},
		{"netlink crypto", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_CRYPTO},
		{"netlink rdma", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_RDMA},
	} {
		cases = append(cases, Case{"socket " + s.name, socket(s.family, s.kind, s.protocol), "EPERM"})
	}
	pair := func() error { _, err := unix.Socketpair(unix.AF_TIPC, unix.SOCK_STREAM, 0); return err }
	return append(cases,
		Case{"socketpair AF_TIPC", pair, "EPERM"},
		Case{"reach an abstract socket of the host", dialHost, "ECONNREFUSED"},
	)
}

func socket(family, kind, protocol int) func() error {
	return func() error {
		fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
}

// dialHost would be the way to pass a descriptor of a GPU between tenants.
func dialHost() error {
	conn, err := net.Dial("unix", "@"+os.Getenv(HostSocket))
	if err == nil {
		conn.Close()
	}
	return err
}
