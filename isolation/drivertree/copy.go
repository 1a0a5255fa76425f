package drivertree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// maxEntries bounds a tree; a real driver has some hundred files.
const maxEntries = 20_000

// copier copies one tree and counts.
type copier struct {
	tree    Tree
	entries int
}

// copyTree copies through two [os.Root]s: neither reading nor writing can leave
// them, whatever links the source has or grows meanwhile.
func (c *copier) copyTree(ctx context.Context, source, target string) error {
	from, err := os.OpenRoot(source)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenRoot(target)
	if err != nil {
		return err
	}
	defer to.Close()
	err = fs.WalkDir(from.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if c.entries++; c.entries > maxEntries {
			return fault.New(fault.Invalid, "copy driver tree", "more than %d entries", maxEntries)
		}
		return c.entry(from, to, name, d.Type())
	})
	if err != nil {
		return err
	}
	return to.Chmod(".", 0o755)
}

func (c *copier) entry(from, to *os.Root, name string, kind fs.FileMode) error {
	switch {
	case name == ".":
		return nil
	case kind.IsDir():
		return to.Mkdir(name, 0o755)
	case kind.IsRegular():
		return c.file(from, to, name)
	case kind&fs.ModeSymlink != 0:
		return link(from, to, name)
	default:
		return refuse(name, "it is a %s, which no driver has", kind)
	}
}

func refuse(name, why string, args ...any) error {
	return fault.New(fault.Invalid, "take "+name+" into the driver tree", why, args...)
}

// link copies a link that stays inside the tree. Its text is checked and not what
// it leads to now: inside the container the same text is followed again.
func link(from, to *os.Root, name string) error {
	target, err := from.Readlink(name)
	if err != nil {
		return err
	}
	if !staysInside(name, target) {
		return refuse(name, "it leads out of the tree, to %q", target)
	}
	return to.Symlink(target, name)
}

// staysInside says whether a link at name, followed step by step, never leaves
// the tree. Folders on the way might be links themselves, so ".." is taken only
// at the front, where it climbs real folders of the link's own path.
func staysInside(name, target string) bool {
	if target == "" || path.IsAbs(target) || path.Clean(target) != target {
		return false
	}
	joined := path.Join("root", path.Dir(name), target)
	return joined == "root" || len(joined) > len("root/") && joined[:len("root/")] == "root/"
}

// file copies one regular file, sharing its blocks where the file system can.
func (c *copier) file(from, to *os.Root, name string) error {
	in, err := from.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return refuse(name, "it changed while it was copied")
	}
	out, err := to.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := c.content(in, out); err != nil {
		return fmt.Errorf("copy %s: %w", name, err)
	}
	return errors.Join(out.Chmod(readOnly(info.Mode())), out.Close())
}

func (c *copier) content(in, out *os.File) error {
	c.tree.Files++
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) == nil {
		c.tree.Reflinked++
		return nil
	}
	n, err := io.Copy(out, in)
	c.tree.Bytes += n
	return err
}

// readOnly keeps what may be executed and drops setuid, setgid and every write bit.
func readOnly(mode fs.FileMode) fs.FileMode {
	if mode&0o111 != 0 {
		return 0o555
	}
	return 0o444
}
