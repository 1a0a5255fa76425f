// Package probe is `warden canary`: it asks the kernel, from below a tenant's
// device program, what that lets through, by trying.
//
// It prints one JSON line a try. A node is opened and closed at once; nothing is
// read, written or configured. Neighbours: isolation/warden/canary reads the
// lines, isolation/audit judges them.
package probe

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Options of one probe.
type Options struct {
	Nodes Nodes
	UID   int // user to try as; 0 stays
}

// Node is a device and where it would lie.
type Node struct {
	Path         string
	Major, Minor uint32
}

// Nodes is a flag that collects path:major:minor.
type Nodes []Node

// String is empty: there is no default to show.
func (n *Nodes) String() string { return "" }

// Set adds one node.
func (n *Nodes) Set(text string) error {
	rest, minor, ok := cutNumber(text)
	path, major, ok2 := cutNumber(rest)
	if !ok || !ok2 || path == "" {
		return errors.New("want path:major:minor")
	}
	*n = append(*n, Node{path, major, minor})
	return nil
}

// cutNumber takes the number after the last colon.
func cutNumber(text string) (before string, n uint32, ok bool) {
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return "", 0, false
	}
	v, err := strconv.ParseUint(text[i+1:], 10, 32)
	return text[:i], uint32(v), err == nil
}

// Run tries every node and prints what came of it.
func Run(o Options, out io.Writer) error {
	if o.UID != 0 {
		if err := become(o.UID); err != nil {
			return err
		}
	}
	for _, node := range o.Nodes {
		if _, err := out.Write(node.append(nil, node.try())); err != nil {
			return fmt.Errorf("print try: %w", err)
		}
	}
	return nil
}

func become(uid int) error {
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("drop groups: %w", err)
	}
	if err := syscall.Setresgid(uid, uid, uid); err != nil {
		return fmt.Errorf("become gid %d: %w", uid, err)
	}
	if err := syscall.Setresuid(uid, uid, uid); err != nil {
		return fmt.Errorf("become uid %d: %w", uid, err)
	}
	return nil
}

// try opens the node. Another file in its place would answer for the wrong
// device: ENODEV says that the node was not tried.
func (n Node) try() unix.Errno {
	var st unix.Stat_t
	if unix.Stat(n.Path, &st) == nil && !isDevice(st, n) {
		return unix.ENODEV
	}
	fd, err := unix.Open(n.Path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return errnoOf(err)
}

func isDevice(st unix.Stat_t, node Node) bool {
	kind := st.Mode & unix.S_IFMT
	return (kind == unix.S_IFCHR || kind == unix.S_IFBLK) && st.Rdev == unix.Mkdev(node.Major, node.Minor)
}

func errnoOf(err error) unix.Errno {
	var errno unix.Errno
	if errors.As(err, &errno) || err == nil {
		return errno
	}
	return unix.EIO
}

func (n Node) append(dst []byte, errno unix.Errno) []byte {
	dst = append(dst, `{"path":`...)
	dst = appendJSON(dst, n.Path)
	dst = append(dst, `,"major":`...)
	dst = strconv.AppendUint(dst, uint64(n.Major), 10)
	dst = append(dst, `,"minor":`...)
	dst = strconv.AppendUint(dst, uint64(n.Minor), 10)
	dst = append(dst, `,"errno":`...)
	dst = strconv.AppendUint(dst, uint64(errno), 10)
	return append(dst, "}\n"...)
}

// appendJSON quotes a path as JSON does, byte for byte where it is plain text.
func appendJSON(dst []byte, text string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, r := range strings.ToValidUTF8(text, "\uFFFD") {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			dst = append(dst, string(r)...)
		}
	}
	return append(dst, '"')
}
