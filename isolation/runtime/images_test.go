package runtime

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
	"github.com/gpuhost/gpuhost/packaging/lab/ociimage"
)

func TestBadArchives(t *testing.T) {
	h := newHost(t)
	good, err := os.ReadFile(hosttest.BusyboxArchive(t))
	if err != nil {
		t.Fatal(err)
	}
	write := func(body []byte) string {
		file := filepath.Join(t.TempDir(), "image.tar")
		if err := os.WriteFile(file, body, 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	fifo, link := filepath.Join(t.TempDir(), "fifo"), filepath.Join(t.TempDir(), "link")
	if err := errors.Join(unix.Mkfifo(fifo, 0o600), os.Symlink(write(good), link)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, file string
		kind       fault.Kind
		says       string
	}{
		{"absent", "/nonexistent.tar", fault.NotFound, "no such file"},
		{"folder", "/etc", fault.Invalid, "no regular file"},
		{"device", "/dev/zero", fault.Invalid, "no regular file"},
		{"fifo", fifo, fault.Invalid, "no regular file"}, // that nobody writes to: opening it would wait for ever
		{"link", link, fault.Invalid, "no regular file"},
		{"relative", "etc/image.tar", fault.Invalid, "absolute"},
		{"traversal", "/tmp/../etc/passwd", fault.Invalid, "clean"},
		{"empty", write(nil), fault.Invalid, "not a complete image archive"},
		{"not an archive", write([]byte(strings.Repeat("no archive ", 1000))), fault.Invalid, "not a complete image archive"},
		{"truncated in a blob", write(good[:len(good)/2]), fault.Invalid, ""},
		{"truncated early", write(good[:700]), fault.Invalid, "not a complete image archive"},
		{"other architecture", hosttest.BusyboxArchive(t, func(s *ociimage.Spec) { s.Architecture = "s390x" }), fault.Invalid, "it is for linux/s390x, this host is linux/amd64"},
		{"no layers", hosttest.BusyboxArchive(t, func(s *ociimage.Spec) { s.Layers = nil }), fault.Invalid, "no layers"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ref := "oci-archive:" + tt.file
			_, err := h.client.PrepareImage(t.Context(), isolation.ImageRequest{Tenant: "acme", Ref: ref}, nil)
			if !fault.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %v of kind %q, want %q saying %q", err, fault.KindOf(err), tt.kind, tt.says)
			}
		})
	}
	if left, err := h.client.Images(t.Context(), ""); err != nil || len(left) > 0 {
		t.Errorf("refused images are listed: %v, %v", left, err)
	}
}

func TestImagesListPruneRemove(t *testing.T) {
	h := newHost(t)
	used := h.importBusybox("acme")
	unused := h.importBusybox("acme", func(s *ociimage.Spec) { s.Config.Labels = map[string]string{"a": "b"} })
	h.importBusybox("other")
	h.start(testLease(used, "sleep", "1000"))
	all, err := h.client.Images(t.Context(), "")
	if err != nil || len(all) != 3 {
		t.Fatalf("images %+v, %v", all, err)
	}
	removed, err := h.client.PruneImages(t.Context(), "acme")
	if err != nil || len(removed) != 1 || removed[0].Ref != unused {
		t.Errorf("pruned %+v, %v", removed, err)
	}
	// An image may go while an instance runs on it.
	if err := h.client.RemoveImage(t.Context(), "acme", used); err != nil {
		t.Error(err)
	}
	if err := h.client.RemoveImage(t.Context(), "acme", used); !fault.Is(err, fault.NotFound) {
		t.Errorf("removed twice: %v", err)
	}
	if out, _ := h.exec(nil, "echo", "alive"); out != "alive\n" {
		t.Errorf("output %q", out)
	}
	h.remove()
	if err := h.client.RemoveTenant(t.Context(), "other"); err != nil {
		t.Error(err)
	}
	if err := h.client.RemoveTenant(t.Context(), "acme"); err != nil {
		t.Error(err)
	}
	if tenants, err := h.client.tenants(t.Context()); err != nil || len(tenants) > 0 {
		t.Errorf("tenants %v, %v", tenants, err)
	}
}

// Copy Fail (CVE-2026-31431) is why: tenants share no inode, not even of one image.
func TestTenantsShareNoFile(t *testing.T) {
	h := newHost(t)
	file := hosttest.BusyboxArchive(t)
	inodes := make(map[uint64]string)
	for _, tenant := range []string{"acme", "other"} {
		req := isolation.ImageRequest{Tenant: tenant, Ref: "oci-archive:" + file}
		if _, err := h.client.PrepareImage(t.Context(), req, nil); err != nil {
			t.Fatal(err)
		}
	}
	err := filepath.WalkDir(h.config.Root, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || entry.Name() != "busybox" {
			return err
		}
		var stat unix.Stat_t
		if err := unix.Stat(path, &stat); err != nil {
			return err
		}
		inodes[stat.Ino] = path
		return nil
	})
	if err != nil || len(inodes) != 2 {
		t.Errorf("busybox lies at %v, want one inode a tenant; %v", inodes, err)
	}
}

func TestNamedUserIsLookedUpInsideTheImage(t *testing.T) {
	h := newHost(t)
	lease := testLease(h.importBusybox("acme", func(s *ociimage.Spec) { s.Config.User = "nobody:nogroup" }), "id")
	out := h.start(lease)
	h.await()
	h.remove()
	if text := out.text(t); text != "uid=65534(nobody) gid=65534(nogroup)\n" {
		t.Errorf("id said %q", text)
	}
}

func TestPasswdThatIsNone(t *testing.T) {
	h := newHost(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("app:x:1:1::/:\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, passwd := range map[string]ociimage.Entry{
		"link":       ociimage.Symlink("etc/passwd", secret),
		"huge":       ociimage.File("etc/passwd", 0o644, string(bytes.Repeat([]byte("x"), maxAccounts+1))),
		"unreadable": ociimage.File("etc/passwd", 0o600, "app:x:1:1::/:\n"),
		"folder":     ociimage.Dir("etc/passwd", 0o755),
	} {
		t.Run(name, func(t *testing.T) {
			ref := h.importBusybox("acme", func(s *ociimage.Spec) {
				s.Config.User = "app"
				s.Layers = []ociimage.Layer{{ociimage.Dir("etc", 0o755), passwd}}
			})
			lease := testLease(ref, "id")
			err := h.makeContainer(lease)
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("error %v", err)
			}
			if err := h.client.Delete(t.Context(), "acme", testUID, isolation.DeleteDisk); err != nil {
				t.Error(err)
			}
		})
	}
}

func FuzzImageName(f *testing.F) {
	for _, seed := range []string{"busybox", "registry.example:5000/a/b:1", "oci-archive:/a.tar", "oci-archive:../a", "a@sha256:0", "A/B", "\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, ref string) {
		name, archive, err := imageName(ref)
		if err != nil {
			return
		}
		if strings.ContainsFunc(name, isControl) || archive != "" && !filepath.IsAbs(archive) {
			t.Errorf("%q became %q, %q", ref, name, archive)
		}
		if again, _, err := imageName(name); err != nil || again != name {
			t.Errorf("%q became %q, then %q, %v", ref, name, again, err)
		}
	})
}

// Collection may take an image between its preparation and the creation from it:
// that is planned again, and no failure of the instance.
func TestAnImageThatGoesBeforeTheCreationIsAConflict(t *testing.T) {
	h := newHost(t)
	ref := h.importBusybox("acme")
	lease := testLease(ref, "sleep", "1000")
	user, err := h.client.User(t.Context(), lease)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.client.RemoveImage(t.Context(), "acme", ref); err != nil {
		t.Fatal(err)
	}
	creation := isolation.Creation{Lease: lease, User: user, Fingerprint: isolation.FingerprintOf(lease)}
	if err := h.client.Prepare(t.Context(), creation); !fault.Is(err, fault.Conflict) {
		t.Errorf("prepare: %v", err)
	}
	if _, err := h.client.User(t.Context(), lease); !fault.Is(err, fault.Conflict) {
		t.Errorf("user: %v", err)
	}
}
