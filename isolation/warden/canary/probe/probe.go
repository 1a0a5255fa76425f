// Package probe is `warden canary`: it asks the kernel, from inside a tenant's
// cgroup, what a tenant's device programs let through, by trying.
//
// It prints one JSON line a try. A node is opened and closed at once; nothing is
// read, written or configured. Neighbours: isolation/warden/canary reads the
// lines, isolation/audit judges them.
package probe

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Options of one probe.
type Options struct {
	Nodes Nodes
	UID   int // user to try as; 0 stays
	// Scratch is a folder on a file system that takes device nodes. A node whose
	// path does not exist is made and opened there; that mknod is a try of its own.
	Scratch string
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
	for i, node := range o.Nodes {
		for _, try := range o.try(node, i) {
			if _, err := out.Write(try.append(nil)); err != nil {
				return fmt.Errorf("print try: %w", err)
			}
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

// attempt is one thing tried.
type attempt struct {
	node  Node
	op    string
	errno unix.Errno
}

// try opens the node where it lies, or makes it and opens it.
func (o Options) try(node Node, i int) []attempt {
	var st unix.Stat_t
	there := unix.Stat(node.Path, &st) == nil
	if there && !isDevice(st, node) {
		return []attempt{{node, "open", unix.ENODEV}}
	}
	if there || o.Scratch == "" {
		return []attempt{{node, "open", openNode(node.Path)}}
	}
	made := filepath.Join(o.Scratch, "node"+strconv.Itoa(os.Getpid())+"-"+strconv.Itoa(i))
	errno := mknod(made, node)
	tries := []attempt{{node, "mknod", errno}}
	if errno != 0 {
		return tries
	}
	defer unix.Unlink(made)
	return append(tries, attempt{node, "open", openNode(made)})
}

func isDevice(st unix.Stat_t, node Node) bool {
	kind := st.Mode & unix.S_IFMT
	return (kind == unix.S_IFCHR || kind == unix.S_IFBLK) && st.Rdev == unix.Mkdev(node.Major, node.Minor)
}

func mknod(path string, node Node) unix.Errno {
	return errnoOf(unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(node.Major, node.Minor))))
}

func openNode(path string) unix.Errno {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return errnoOf(err)
}

func errnoOf(err error) unix.Errno {
	var errno unix.Errno
	if errors.As(err, &errno) || err == nil {
		return errno
	}
	return unix.EIO
}

func (a attempt) append(dst []byte) []byte {
	dst = append(dst, `{"op":"`+a.op+`","path":`...)
	dst = appendJSON(dst, a.node.Path)
	dst = append(dst, `,"major":`...)
	dst = strconv.AppendUint(dst, uint64(a.node.Major), 10)
	dst = append(dst, `,"minor":`...)
	dst = strconv.AppendUint(dst, uint64(a.node.Minor), 10)
	dst = append(dst, `,"errno":`...)
	dst = strconv.AppendUint(dst, uint64(a.errno), 10)
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
