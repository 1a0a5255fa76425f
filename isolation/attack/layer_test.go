package attack

import (
	"archive/tar"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/packaging/lab/ociimage"
)

// refused is what a hostile image comes to that never becomes an instance.
const refused = "refused"

// minLayers is how many hostile layers there are at least.
const minLayers = 17

// layers are hostile entries, what becomes of the image, and what its instance
// answers to the command. Paths below /victim are the host's own, in $VICTIM.
func hostileLayers(victim string) []struct {
	name    string
	layer   ociimage.Layer
	command string
	want    string
} {
	up := "../../../../../../../../.." + victim
	entry := func(kind byte, name, link string) ociimage.Entry {
		return ociimage.Entry{Header: tar.Header{Typeflag: kind, Name: name, Linkname: link, Mode: 0o666, Devmajor: 1, Devminor: 1}}
	}
	xattr := func(name, value string) ociimage.Entry {
		e := ociimage.Dir("xattr", 0o755)
		e.Format, e.PAXRecords = tar.FormatPAX, map[string]string{"SCHILY.xattr." + name: value}
		return e
	}
	return []struct {
		name    string
		layer   ociimage.Layer
		command string
		want    string
	}{
		{"name with ..", ociimage.Layer{ociimage.File(up+"/new", 0o644, "x")}, "cat " + victim + "/new", "x"},
		{"absolute name", ociimage.Layer{ociimage.File(victim+"/new", 0o644, "x")}, "cat " + victim + "/new", "x"},
		{"file through a link", ociimage.Layer{ociimage.Symlink("link", victim), ociimage.File("link/new", 0o644, "x")}, "cat " + victim + "/new", "x"},
		{"file through a link with ..", ociimage.Layer{ociimage.Symlink("link", up), ociimage.File("link/new", 0o644, "x")}, "cat " + victim + "/new", "x"},
		{"hard link out", ociimage.Layer{entry(tar.TypeLink, "hard", victim+"/secret")}, "cat /hard", refused},
		{"hard link out with ..", ociimage.Layer{entry(tar.TypeLink, "hard", up+"/secret")}, "cat /hard", refused},
		{"hard link through a link", ociimage.Layer{ociimage.Symlink("link", victim), entry(tar.TypeLink, "hard", "link/secret")}, "cat /hard", refused},
		{"link to the host", ociimage.Layer{ociimage.Symlink("link", victim+"/secret")}, "cat /link 2>&1", "cat: can't open '/link': No such file or directory"},
		{"character device", ociimage.Layer{entry(tar.TypeChar, "mem", "")}, "cat /mem 2>&1", "cat: can't open '/mem': Permission denied"},
		{"block device", ociimage.Layer{entry(tar.TypeBlock, "disk", "")}, "cat /disk 2>&1", "cat: can't open '/disk': Permission denied"},
		{"set-uid program", ociimage.Layer{{Header: tar.Header{Typeflag: tar.TypeReg, Name: "suid", Mode: 0o4755}, Body: []byte("#!/bin/sh\n")}}, "grep ' / / ' /proc/self/mountinfo | grep -c nosuid", "1"},
		{"trusted.overlay xattr", ociimage.Layer{xattr("trusted.overlay.redirect", victim)}, "ls /xattr", ""},
		{"user.overlay xattr", ociimage.Layer{xattr("user.overlay.redirect", victim)}, "ls /xattr", ""},
		{"whiteout of ..", ociimage.Layer{ociimage.File("a/.wh...", 0o644, "")}, "ls /bin/busybox", refused},
		{"whiteout of .", ociimage.Layer{ociimage.File("a/.wh..", 0o644, "")}, "ls /bin/busybox", refused},
		{"whiteout out of the root", ociimage.Layer{ociimage.File(up+"/.wh.secret", 0o644, "")}, "ls /bin/busybox", "/bin/busybox"},
		{"opaque root", ociimage.Layer{ociimage.File(".wh..wh..opq", 0o644, ""), ociimage.File("left", 0o644, "x")}, "ls /bin/busybox", "/bin/busybox"},
	}
}

func TestHostileLayers(t *testing.T) {
	h := newHost(t)
	victim := filepath.Join(h.dir, "victim")
	must(t, os.Mkdir(victim, 0o755))
	must(t, os.WriteFile(filepath.Join(victim, "secret"), []byte("secret"), 0o644))
	before := tree(t, victim)
	table := hostileLayers(victim)
	if len(table) < minLayers {
		t.Errorf("%d layers, at least %d were tried before", len(table), minLayers)
	}
	for _, tt := range table {
		t.Run(tt.name, func(t *testing.T) {
			outer := h.t
			h.t = t
			defer func() { h.t = outer }()
			l := lease(1, h.image(func(s *ociimage.Spec) { s.Layers = append(s.Layers, tt.layer) }))
			if got := h.outcome(l, tt.command); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
			if diff := cmp.Diff(before, tree(t, victim)); diff != "" {
				t.Errorf("the host's files (-before +after):\n%s", diff)
			}
		})
	}
}

// outcome makes an instance of the image, runs the command in it with every
// control in force, and takes all away again.
func (h *host) outcome(l isolation.Lease, command string) string {
	h.t.Helper()
	defer h.remove(l)
	if err := h.pursue(l); err != nil {
		h.t.Log(err)
		return refused
	}
	h.audited(l)
	return strings.TrimSpace(h.exec(l, "/bin/sh", "-c", command))
}

// tree is all that a folder of the host holds, owners, modes and links included.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		found[path] = stat(st)
		return nil
	})
	must(t, err)
	return found
}

func stat(st unix.Stat_t) string {
	return fmt.Sprintf("mode %o, %d links, %d:%d, %d bytes, device %d", st.Mode, st.Nlink, st.Uid, st.Gid, st.Size, st.Rdev)
}
