package api

import (
	"fmt"
	"net"
	"os/user"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// Peers maps what the kernel says of a peer to a role. Root is always an
// operator; a uid without any entry has no role.
type Peers struct {
	OperatorGroups []uint32
	ViewerGroups   []uint32
	Tenants        map[uint32]string // uid to tenant
}

// LookupPeers finds the groups by name. A group that the host does not have
// grants nothing to anybody.
func LookupPeers(operators, viewers string, tenants map[uint32]string) Peers {
	return Peers{OperatorGroups: groupIDs(operators), ViewerGroups: groupIDs(viewers), Tenants: tenants}
}

func groupIDs(name string) []uint32 {
	group, err := user.LookupGroup(name)
	if err != nil {
		return nil
	}
	id, err := strconv.ParseUint(group.Gid, 10, 32)
	if err != nil {
		return nil
	}
	return []uint32{uint32(id)}
}

// overflowID is what the kernel shows for a uid that has no place in our user
// namespace: it names nobody, so no rule may match it.
const overflowID = 65534

// peer is one end of a unix socket at the time it connected.
type peer struct {
	pid    int32
	uid    uint32
	groups []uint32 // primary and supplementary
}

// caller gives the peer its role: the first of root, operator group, viewer
// group and tenant that applies.
func (p Peers) caller(who peer) Caller {
	c := Caller{UID: who.uid, Name: "uid:" + strconv.FormatUint(uint64(who.uid), 10)}
	if who.uid == 0 {
		c.Name, c.Role = "root", RoleOperator
		return c
	}
	if who.uid == overflowID {
		return c
	}
	switch tenant := p.Tenants[who.uid]; {
	case anyIn(who.groups, p.OperatorGroups):
		c.Role = RoleOperator
	case anyIn(who.groups, p.ViewerGroups):
		c.Role = RoleViewer
	case tenant != "":
		c.Role, c.Tenant = RoleTenant, tenant
	}
	return c
}

func anyIn(have, want []uint32) bool {
	return slices.ContainsFunc(have, func(id uint32) bool {
		return id != overflowID && slices.Contains(want, id)
	})
}

// peerOf asks the kernel who connected.
func peerOf(conn net.Conn) (peer, error) {
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return peer{}, fault.New(fault.Forbidden, "identify caller", "%T carries no credentials", conn)
	}
	raw, err := unixConn.SyscallConn()
	if err != nil {
		return peer{}, fmt.Errorf("identify caller: %w", err)
	}
	var who peer
	var inner error
	if err := raw.Control(func(fd uintptr) { who, inner = peerOfSocket(int(fd)) }); err != nil {
		return peer{}, fmt.Errorf("identify caller: %w", err)
	}
	return who, inner
}

func peerOfSocket(fd int) (peer, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return peer{}, fmt.Errorf("read SO_PEERCRED: %w", err)
	}
	groups, err := peerGroups(fd)
	if err != nil {
		return peer{}, fmt.Errorf("read SO_PEERGROUPS: %w", err)
	}
	return peer{pid: cred.Pid, uid: cred.Uid, groups: append(groups, cred.Gid)}, nil
}

// peerGroups reads the supplementary groups (Linux 4.13). SO_PEERCRED has the
// primary one only, and the group database may differ from what the process holds.
func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch errno {
		case 0:
			return groups[:size/4], nil
		case unix.ERANGE: // size now says how much is needed
			groups = make([]uint32, size/4)
		default:
			return nil, errno
		}
	}
}
