package launch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation/warden/canary"
)

// canaryWait bounds one canary: its opens answer at once unless a driver hangs.
const canaryWait = 10 * time.Second

// Canary tries nodes, as host root or another user, in a cgroup beside the
// instance's task: the outer program is asked there too, and no limit of the
// tenant's holds. Inside them a tenant that has used up its processes would refuse
// the canary, and one that has used up its memory would be killed by it. The
// cgroup goes with the next one's, or with the instance's.
//
// Canaries of one instance run one after the other. An error means that none ran
// to its end, which says nothing about what the kernel would have answered.
func (l *Launcher) Canary(ctx context.Context, uid spec.UID, o canary.Options) ([]canary.Result, error) {
	results, err := l.canaryInTime(ctx, uid, o)
	return results, fault.Wrap(fault.Temporary, "run canary of instance "+string(uid), err)
}

// canaryInTime leaves a canary that does not end to its fate: one that hangs in a
// driver does not hear SIGKILL, and the audits of all others wait behind it.
func (l *Launcher) canaryInTime(ctx context.Context, uid spec.UID, o canary.Options) ([]canary.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, canaryWait)
	defer cancel()
	type answer struct {
		results []canary.Result
		err     error
	}
	answers := make(chan answer, 1)
	go func() {
		results, err := l.canary(ctx, uid, o)
		answers <- answer{results, err}
	}()
	select {
	case a := <-answers:
		return a.results, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("await its end: %w", ctx.Err())
	}
}

func (l *Launcher) canary(ctx context.Context, uid spec.UID, o canary.Options) ([]canary.Result, error) {
	fd, err := l.openCanaryCgroup(uid)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	cmd := exec.CommandContext(ctx, l.config.Paths.Warden, o.Args()...)
	cmd.Dir, cmd.Env = "/", environment(1)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	output, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, bytes.TrimSpace(complaint.Bytes()))
	}
	return canary.Parse(bytes.NewReader(output))
}

// openCanaryCgroup makes the cgroup anew; an instance without a parent cgroup has
// none. A used one will not do: a stop kills the instance's cgroup with all below
// it, and the kernel (6.18) then ends whatever is cloned into it from outside,
// for good. A second canary beside one that hangs is refused, or every audit would
// leave one more behind.
func (l *Launcher) openCanaryCgroup(uid spec.UID) (int, error) {
	dir := filepath.Join(l.config.Paths.CgroupMount, l.config.Paths.CanaryCgroup(uid))
	err := unix.Rmdir(dir)
	if errors.Is(err, unix.EBUSY) {
		pids, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		return -1, fmt.Errorf("process %s, an earlier canary, has not ended", strings.Join(strings.Fields(string(pids)), ", "))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return -1, fmt.Errorf("remove the last canary's cgroup: %w", err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return -1, fmt.Errorf("make cgroup: %w", err)
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open cgroup: %w", err)
	}
	return fd, nil
}
