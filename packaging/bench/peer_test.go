package bench_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

// ctr is containerd's own command against the same containerd that gpuhost
// runs: what a start costs without us.
type ctr struct {
	b      *testing.B
	binary string
	socket string
	runc   string
	state  string // runc's, for this peer alone
	image  string
}

func newCtr(b *testing.B, h *host) *ctr {
	b.Helper()
	binary := filepath.Join(hosttest.Root(b), "build", "runtime", "peer", "ctr")
	if _, err := os.Stat(binary); err != nil {
		b.Skip("no ctr: packaging/runtime/build.sh --peer build/runtime/peer")
	}
	c := &ctr{b: b, binary: binary, socket: containerdSocket(b, h.root),
		runc: filepath.Join(hosttest.RuntimeDir(b), "runc"), state: filepath.Join(h.root, "peer-runc")}
	c.do("images", "import", "--local", h.image) // no streaming plugin is on
	c.image = strings.Fields(c.do("images", "ls", "-q"))[0]
	return c
}

// containerdSocket finds where the host's containerd listens.
func containerdSocket(b *testing.B, root string) string {
	b.Helper()
	var found string
	walk := func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type()&fs.ModeSocket != 0 && strings.HasPrefix(entry.Name(), "containerd") && !strings.Contains(entry.Name(), "ttrpc") {
			found = path
		}
		return nil
	}
	if err := filepath.WalkDir(root, walk); err != nil || found == "" {
		b.Fatalf("no containerd socket below %s: %v", root, err)
	}
	return found
}

func (c *ctr) command(args ...string) *exec.Cmd {
	return exec.Command(c.binary, append([]string{"-a", c.socket, "-n", "peer"}, args...)...)
}

func (c *ctr) do(args ...string) string {
	c.b.Helper()
	return must(c.b, c.command(args...))
}

// start is what is compared: a container in a user namespace, detached.
func (c *ctr) start(name string) *exec.Cmd {
	args := []string{"run", "-d", "--cpu-shares", "0", "--uidmap", "0:1879048192:65536", "--gidmap", "0:1879048192:65536", "--remap-labels",
		"--runc-binary", c.runc, "--runc-root", c.state, c.image, name}
	return c.command(append(args, task[:]...)...)
}

func (c *ctr) remove(name string) {
	c.b.Helper()
	c.do("tasks", "rm", "-f", name)
	c.do("containers", "rm", name)
}

// docker is a private dockerd of the distribution with its bridge network.
type docker struct {
	b      *testing.B
	client string
	socket string
}

// newDocker starts one, or says why there is none.
func newDocker(b *testing.B) (*docker, error) {
	b.Helper()
	daemon, err := exec.LookPath("dockerd")
	if err != nil {
		return nil, err
	}
	d := &docker{b: b, client: "/usr/bin/docker"} // the one packaged with dockerd
	dir, err := os.MkdirTemp("", "gd")
	if err != nil {
		return nil, err
	}
	d.socket = filepath.Join(dir, "s")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(daemon, "--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, "pid"), "--host", "unix://"+d.socket, "--exec-opt", "native.cgroupdriver=cgroupfs")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	b.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt) // it may have ended
		<-ended
		sweepCgroups("docker")
		_ = os.RemoveAll(dir)
	})
	if err := d.await(ended, log.Name()); err != nil {
		ended <- err // for the cleanup
		return nil, err
	}
	return d, d.load(dir)
}

// await waits until dockerd answers.
func (d *docker) await(ended chan error, log string) error {
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if conn, err := net.Dial("unix", d.socket); err == nil {
			conn.Close()
			return nil
		}
		select {
		case <-tick.C:
		case err := <-ended:
			text, _ := os.ReadFile(log)
			return fmt.Errorf("dockerd ended: %w: %s", err, text[max(0, len(text)-600):])
		case <-deadline:
			return errors.New("dockerd did not answer in 30 s")
		}
	}
}

// load makes an image of busybox: this docker takes no OCI archive.
func (d *docker) load(dir string) error {
	script := `set -e; mkdir -p $0/img/bin; cp /bin/busybox $0/img/bin/; ln -sf busybox $0/img/bin/sleep; ln -sf busybox $0/img/bin/sh
tar -C $0/img -c . | ` + d.client + ` --host unix://` + d.socket + ` import - busybox:1`
	out, err := exec.Command("sh", "-c", script, dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("import image: %w: %s", err, out)
	}
	return nil
}

func (d *docker) command(args ...string) *exec.Cmd {
	return exec.Command(d.client, append([]string{"--host", "unix://" + d.socket}, args...)...)
}

func (d *docker) start(name string) *exec.Cmd {
	return d.command(append([]string{"run", "-d", "--name", name, "busybox:1"}, task[:]...)...)
}

func (d *docker) remove(name string) {
	d.b.Helper()
	must(d.b, d.command("rm", "-f", name))
}
