package launch

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/isolation/warden/canary"
)

// Canary tries nodes from inside the cgroup at the folder cgroupDir, as host
// root or another user, and reports what the kernel answered.
func (l *Launcher) Canary(ctx context.Context, cgroupDir string, o canary.Options) ([]canary.Result, error) {
	fd, err := unix.Open(cgroupDir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open cgroup %s: %w", cgroupDir, err)
	}
	defer unix.Close(fd)
	cmd := exec.CommandContext(ctx, l.config.Paths.Warden, o.Args()...)
	cmd.Dir, cmd.Env = "/", environment(1)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	output, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("run canary: %w: %s", err, bytes.TrimSpace(complaint.Bytes()))
	}
	return canary.Parse(bytes.NewReader(output))
}
