package reconcile

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network"
)

// Problem is something that is not as it should be now: a lane whose last run
// failed, or a task of the agent that does not work. What keeps an instance from
// being as wanted is in its own status.
type Problem struct {
	Name  string // "host", "network acme/default"
	Err   error
	Since time.Time // of the first failure in a row
	Task  bool      // of the agent beside its lanes: what is wanted is in force all the same
}

// problems are those there are, by lane or task. Status, doctor and readiness read
// them: what is told in the log alone is found too late.
type problems struct {
	mu sync.Mutex
	by map[string]Problem
}

func newProblems() *problems { return &problems{by: make(map[string]Problem)} }

// note remembers an error, and forgets it with the next success.
func (p *problems) note(now Problem) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Err == nil {
		delete(p.by, now.Name)
		return
	}
	if old, there := p.by[now.Name]; there {
		now.Since = old.Since
	}
	p.by[now.Name] = now
}

func (p *problems) list() []Problem {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Problem, 0, len(p.by))
	for _, one := range p.by {
		out = append(out, one)
	}
	return out
}

// NoteProblem tells of a task of the agent that does not work, or with nil that it
// does again.
func (l *Loop) NoteProblem(task string, err error) {
	l.problems.note(Problem{Name: task, Err: err, Since: l.Now(), Task: true})
}

// Problems lists what is not as it should be now, by name.
func (l *Loop) Problems() []Problem {
	out := l.problems.list()
	for i := range out {
		_, uid, ofObject := strings.Cut(out[i].Name, "/")
		if o, err := l.Store.GetUID(spec.UID(uid)); ofObject && err == nil {
			out[i].Name = o.Ref().String()
		}
	}
	slices.SortFunc(out, func(a, b Problem) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// turn is one run of a lane with its outcome noted.
func (l *Loop) turn(ctx context.Context, key string) (time.Duration, error) {
	asked := l.changes.through()
	again, err := l.work(ctx, key)
	if ctx.Err() == nil && !strings.HasPrefix(key, instanceLane) {
		l.problems.note(Problem{Name: key, Err: err, Since: l.Now()})
		l.pass(asked, key, err)
	}
	return again, err
}

// showNetwork writes down whether a VPC's rules are in force.
func (l *Loop) showNetwork(o *spec.Object, want *network.VPC, err error) {
	s := carry(o)
	s.Phase = spec.PhaseRunning
	c := spec.Condition{
		Type: "Ready", Status: true, Reason: "InForce", Message: "its rules are in force",
		ObservedGeneration: o.Metadata.Generation, Since: l.Now(),
	}
	switch {
	case err != nil:
		s.Phase = spec.PhaseFailed
		if isUnseen(err) {
			s.Phase = spec.PhaseUnknown
		}
		c.Status, c.Reason, c.Message = false, reasonOf(err), message(err)
	case want == nil:
		c.Message = "no instance is in it"
	}
	s.SetCondition(c)
	l.putStatus(o, s)
}
