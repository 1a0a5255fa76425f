package launch

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation/warden/canary"
)

const (
	// canaryWait bounds one visit: opens answer at once unless a driver hangs.
	canaryWait = 10 * time.Second
	// mostCanaries is how many visits there may be at once. Each has a process, kept
	// for the next; a driver that hangs has one for canaryWait.
	mostCanaries = 2
)

// Canary tries nodes, as host root and as the tenant, in a cgroup beside the
// instance's task: the outer program is asked there too, and no limit of the
// tenant's holds. Inside them a tenant that has used up its processes would refuse
// the canary, and one that has used up its memory would be killed by it. The
// cgroup goes with the next visit's, or with the instance's.
//
// Visits to one instance are made one after the other. An error means that none came
// to its end, which says nothing about what the kernel would have answered.
func (l *Launcher) Canary(ctx context.Context, uid spec.UID, t canary.Tries) (canary.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, canaryWait)
	defer cancel()
	answer, err := l.canary(ctx, uid, t)
	return answer, fault.Wrap(fault.Temporary, "run canary of instance "+string(uid), err)
}

func (l *Launcher) canary(ctx context.Context, uid spec.UID, t canary.Tries) (canary.Answer, error) {
	dir, err := l.makeCanaryCgroup(uid)
	if err != nil {
		return canary.Answer{}, err
	}
	select {
	case l.visits <- struct{}{}:
		defer func() { <-l.visits }()
	case <-ctx.Done():
		return canary.Answer{}, fmt.Errorf("await a free one: %w", ctx.Err())
	}
	answer, c, err := l.visit(ctx, l.takeCanary(), canary.Visit{Cgroup: dir, Tries: t})
	l.keepCanary(c)
	return answer, err
}

// takeCanary gives one that is at rest, nil where there is none.
func (l *Launcher) takeCanary() *canaryProcess {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.kept) == 0 {
		return nil
	}
	c := l.kept[len(l.kept)-1]
	l.kept = l.kept[:len(l.kept)-1]
	return c
}

func (l *Launcher) keepCanary(c *canaryProcess) {
	if c == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept = append(l.kept, c)
}

// visit sends a canary, nil for a new one, and gives the one to keep. Whatever one
// that is gone left in the cgroup is ended.
func (l *Launcher) visit(ctx context.Context, c *canaryProcess, v canary.Visit) (canary.Answer, *canaryProcess, error) {
	for kept := c != nil; ; kept = false {
		if !kept {
			var err error
			if c, err = l.startCanary(); err != nil {
				return canary.Answer{}, nil, fmt.Errorf("start: %w", err)
			}
		}
		answer, err := c.visit(ctx, v)
		if !errors.Is(err, errCanaryGone) {
			return answer, c, err
		}
		c.end()
		if kept && errors.Is(err, unix.EPIPE) {
			continue // it ended long ago and has sent nobody
		}
		return canary.Answer{}, nil, errors.Join(err, writeFile(filepath.Join(v.Cgroup, "cgroup.kill"), "1"))
	}
}

// makeCanaryCgroup makes it anew; an instance without a parent cgroup has none. A
// used one will not do: a stop kills the instance's cgroup with all below it, and
// the kernel (6.18) then ends whatever is cloned into it from outside, for good. A
// second canary beside one that hangs is refused, or every audit would leave one
// more behind.
func (l *Launcher) makeCanaryCgroup(uid spec.UID) (string, error) {
	dir := filepath.Join(l.config.Paths.CgroupMount, l.config.Paths.CanaryCgroup(uid))
	err := unix.Rmdir(dir)
	if errors.Is(err, unix.EBUSY) {
		pids, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		return "", fmt.Errorf("process %s, an earlier canary, has not ended", strings.Join(strings.Fields(string(pids)), ", "))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("remove the last canary's cgroup: %w", err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", fmt.Errorf("make cgroup: %w", err)
	}
	return dir, nil
}

// canaryProcess is one `warden canary`, in the wardens' cgroup. It ends with its
// input, and so with the agent.
type canaryProcess struct {
	cmd     *exec.Cmd
	in, out *os.File
	answers *bufio.Reader
}

func (l *Launcher) startCanary() (*canaryProcess, error) {
	visits, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	defer visits.Close()
	out, answers, err := os.Pipe()
	if err != nil {
		in.Close()
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	defer answers.Close()
	p := l.warden("canary", []string{"canary"})
	cmd := exec.Command(p.path, p.args...)
	cmd.Stdin, cmd.Stdout = visits, answers
	if l.config.Stderr != nil {
		cmd.Stderr = l.config.Stderr
	}
	if err := spawn(cmd, p); err != nil {
		in.Close()
		out.Close()
		return nil, err
	}
	return &canaryProcess{cmd: cmd, in: in, out: out, answers: bufio.NewReader(out)}, nil
}

// errCanaryGone says that a canary died, hangs or speaks in riddles, and is of no
// more use.
var errCanaryGone = errors.New("the canary is gone")

// visit sends the canary to one cgroup.
func (c *canaryProcess) visit(ctx context.Context, v canary.Visit) (canary.Answer, error) {
	stop := context.AfterFunc(ctx, func() {
		_ = errors.Join(c.in.SetDeadline(time.Unix(1, 0)), c.out.SetDeadline(time.Unix(1, 0)))
	})
	err := canary.WriteVisit(c.in, v)
	var answer canary.Answer
	if err == nil {
		answer, err = canary.ReadAnswer(c.answers, v.Tries)
	}
	if !stop() {
		return canary.Answer{}, fmt.Errorf("%w: await its end: %w", errCanaryGone, ctx.Err())
	}
	if err != nil && !errors.As(err, new(canary.Failed)) {
		return canary.Answer{}, fmt.Errorf("%w: %w", errCanaryGone, err)
	}
	return answer, err
}

// end ends the process. What it sent into a cgroup and hangs there in a driver does
// not hear SIGKILL and is left to its fate.
func (c *canaryProcess) end() {
	_ = c.cmd.Process.Kill() // it may have ended
	c.in.Close()
	c.out.Close()
}

// Close ends the canaries that are kept, once they are back from their visits. One
// that is needed later is started again.
func (l *Launcher) Close() error {
	for range mostCanaries {
		l.visits <- struct{}{}
	}
	for c := l.takeCanary(); c != nil; c = l.takeCanary() {
		c.end()
	}
	for range mostCanaries {
		<-l.visits
	}
	return nil
}
