package attack

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/packaging/lab/ociimage"
)

// Most CUDA images run as root, many (notebooks, model servers) do not: their
// user opens the GPU, and another tenant's user of the same number does not.
func TestImagesOwnUserOpensItsGPU(t *testing.T) {
	h := newHost(t)
	passwd := ociimage.Layer{ociimage.File("etc/passwd", 0o644, "root:x:0:0::/root:/bin/sh\nappuser:x:1234:1234::/:/bin/sh\n")}
	image := func(user string) string {
		return h.image(func(s *ociimage.Spec) { s.Config.User, s.Layers = user, append(s.Layers, passwd) })
	}
	named := lease(3, image(""), 2)
	named.User = "appuser"
	for _, tt := range []struct {
		lease isolation.Lease
		uid   uint32
	}{
		{lease(1, image("1000"), 0), 1000},
		{lease(2, image("appuser"), 1), 1234},
		{named, 1234},
	} {
		h.start(tt.lease)
		h.audited(tt.lease)
		name := fmt.Sprintf("nvidia%d", tt.lease.GPUs[0].Minor)
		node := filepath.Join(h.paths.NodeDir(tt.lease.UID), name)
		if owner := ownerOf(t, node); owner != tt.lease.IDs.Start+tt.uid {
			t.Errorf("%s: node of %d, want %d", tt.lease.UID, owner, tt.lease.IDs.Start+tt.uid)
		}
		// ENXIO is what a node without a driver behind it answers who may open it.
		if got := h.exec(tt.lease, "/probe", "open", "/dev/"+name, "/dev/nvidiactl"); strings.Count(got, "ENXIO") != 2 {
			t.Errorf("%s opens its own nodes: %s", tt.lease.UID, got)
		}
		for _, stranger := range []uint32{lease(9, "").IDs.Start, lease(9, "").IDs.Start + tt.uid, tt.lease.IDs.Start + tt.uid + 1} {
			if got := h.openAs(stranger, node); got != "EACCES" {
				t.Errorf("%d opens %s: %s", stranger, node, got)
			}
		}
	}
}

func ownerOf(t *testing.T, path string) uint32 {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	return info.Sys().(*syscall.Stat_t).Uid
}

// openAs tries to open a file of the host as one of its users.
func (h *host) openAs(uid uint32, path string) string {
	h.t.Helper()
	cmd := exec.Command(h.probe, "open", path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.Output()
	must(h.t, err)
	return strings.TrimSpace(string(out))
}
