package attack

import (
	"archive/tar"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
	"github.com/gpuhost/gpuhost/packaging/lab/ociimage"
)

// minImages is how many hostile images there are at least.
const minImages = 26

// hostileImage is an image, a command run in its instance, and what comes of it.
type hostileImage struct {
	name    string
	edit    func(*ociimage.Spec)
	command string
	want    string
}

// hostileRoots have something else where mounts and binds go.
func hostileRoots(victim string) []hostileImage {
	replaced := func(path string, e ociimage.Entry) func(*ociimage.Spec) {
		return func(s *ociimage.Spec) {
			whiteout := ociimage.File(filepath.Join(filepath.Dir(path), ".wh."+filepath.Base(path)), 0o644, "")
			s.Layers = append(s.Layers, ociimage.Layer{whiteout}, ociimage.Layer{e})
		}
	}
	link := func(path, to string) func(*ociimage.Spec) { return replaced(path, ociimage.Symlink(path, to)) }
	file := func(path string) func(*ociimage.Spec) { return replaced(path, ociimage.File(path, 0o644, "x")) }
	fifo := func(path string) func(*ociimage.Spec) {
		return replaced(path, ociimage.Entry{Header: tar.Header{Typeflag: tar.TypeFifo, Name: path, Mode: 0o666}})
	}
	const runs = "echo runs"
	return []hostileImage{
		{"/dev is a link", link("dev", victim), runs, refused}, // by the audit: runc follows it, inside the root,
		{"/dev is a file", file("dev"), runs, refused},
		{"/proc is a link", link("proc", victim), runs, refused},
		{"/proc is a file", file("proc"), runs, refused},
		{"/sys is a link", link("sys", victim), runs, refused},
		{"/sys is a file", file("sys"), runs, refused},
		{"/etc is a link", link("etc", victim), runs, "runs"},
		{"/etc/hosts is a link", link("etc/hosts", victim+"/secret"), runs, "runs"},
		{"/etc/hosts is a link to sysrq", link("etc/hosts", "/proc/sysrq-trigger"), runs, refused},
		{"/etc/resolv.conf is a fifo", fifo("etc/resolv.conf"), runs, "runs"},
		{"/usr/local/nvidia is a link", link("usr/local/nvidia", victim), runs, "runs"},
		{"/usr/local/nvidia is a file", file("usr/local/nvidia"), runs, refused},
		{"/run is a link", link("run", victim), runs, "runs"},
		{"/dev/null is a link", link("dev/null", "/proc/sysrq-trigger"), "stat -c %t:%T /dev/null", "1:3"},
		{"/dev/console is a link", link("dev/console", victim+"/secret"), runs, "runs"},
	}
}

// hostileConfigs ask for what is not theirs.
func hostileConfigs(victim string) []hostileImage {
	return []hostileImage{
		{"USER 99999999999", func(s *ociimage.Spec) { s.Config.User = "99999999999" }, "id", refused},
		{"USER 65536", func(s *ociimage.Spec) { s.Config.User = "65536" }, "id", refused},
		{"USER of a linked passwd", func(s *ociimage.Spec) {
			s.Config.User = "secret"
			s.Layers = append(s.Layers, ociimage.Layer{ociimage.Symlink("etc/passwd", victim+"/secret")})
		}, "id", refused},
		{"USER with traversal", func(s *ociimage.Spec) { s.Config.User = "../../etc/shadow" }, "id", refused},
		{"WORKDIR /proc/self/fd/7", func(s *ociimage.Spec) { s.Config.WorkingDir = "/proc/self/fd/7" }, "pwd", refused},
		{"WORKDIR with ..", func(s *ociimage.Spec) { s.Config.WorkingDir = "/a/../../.." + victim }, "pwd", refused},
		{"WORKDIR through a link", func(s *ociimage.Spec) {
			s.Config.WorkingDir = "/link"
			s.Layers = append(s.Layers, ociimage.Layer{ociimage.Symlink("link", "/proc/self/fd/7")})
		}, "pwd", refused},
		{"VOLUME /../../etc", func(s *ociimage.Spec) { s.Config.Volumes = map[string]struct{}{"/../.." + victim: {}} }, "ls " + victim + " 2>&1 | wc -l", "1"},
		{"ENV", func(s *ociimage.Spec) {
			s.Config.Env = append(s.Config.Env, "NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=all", "LD_PRELOAD=/evil.so", "GODEBUG=x")
		}, "echo $NVIDIA_VISIBLE_DEVICES$NVIDIA_DRIVER_CAPABILITIES", "void"},
		{"LABEL", func(s *ociimage.Spec) {
			s.Config.Labels = map[string]string{"containerd.io/restart.status": "running", "gpuhost/user": "0:0", "containerd.io/gc.root": "x"}
		}, "echo runs", "runs"},
		{"STOPSIGNAL", func(s *ociimage.Spec) { s.Config.StopSignal = "SIG;reboot" }, "echo runs", "runs"},
	}
}

func TestHostileImages(t *testing.T) {
	h := newHost(t)
	victim := filepath.Join(h.dir, "victim")
	must(t, os.Mkdir(victim, 0o755))
	must(t, os.WriteFile(filepath.Join(victim, "secret"), []byte("secret:x:1:1::/:/bin/sh\n"), 0o644))
	before := tree(t, victim)
	table := append(hostileRoots(victim), hostileConfigs(victim)...)
	if len(table) < minImages {
		t.Errorf("%d images, at least %d were tried before", len(table), minImages)
	}
	for _, tt := range table {
		t.Run(tt.name, func(t *testing.T) {
			outer := h.t
			h.t = t
			defer func() { h.t = outer }()
			if got := h.outcome(lease(1, h.image(tt.edit), 0), tt.command); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
			if diff := cmp.Diff(before, tree(t, victim)); diff != "" {
				t.Errorf("the host's files (-before +after):\n%s", diff)
			}
		})
	}
}

// TestEntrypointIsRunc is CVE-2019-5736: an image whose program is the program
// that starts it. The host's runc stays as it is.
func TestEntrypointIsRunc(t *testing.T) {
	h := newHost(t)
	runc := filepath.Join(hosttest.RuntimeDir(t), "runc")
	before, err := os.Stat(runc)
	must(t, err)
	l := lease(1, h.image())
	l.Command = []string{"/proc/self/exe", "--version"}
	if err := h.pursue(l); err != nil {
		t.Log(err)
	}
	h.remove(l)
	after, err := os.Stat(runc)
	must(t, err)
	if before.ModTime() != after.ModTime() || before.Size() != after.Size() || !os.SameFile(before, after) {
		t.Errorf("runc was %v, is %v", before, after)
	}
}
