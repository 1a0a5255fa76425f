package audit

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// finding is the outcome of one control: what was there, and, when that is not
// what was expected, that it failed.
type finding struct {
	expected string
	found    string
	pass     bool
}

// judgement is one control: its name in the table of docs/isolation.md and how
// it is decided.
type judgement struct {
	id, name string
	judge    func(Want, Facts) finding
}

func judgements() []judgement {
	return []judgement{
		{"I1", "user namespace with the tenant's own range", judgeIDs},
		{"I2", "namespaces of its own", judgeNamespaces},
		{"I3", "capabilities within the permitted set", judgeCapabilities},
		{"I4", "no new privileges", judgeNoNewPrivs},
		{"D1", "inner device program lets only the grant through", judgeInner},
		{"D2", "outer device program is the agent's own", judgeOuter},
		{canaryControl, "canary is refused every forbidden node", judgeCanary},
		{"D4", "private nodes equal the grant", judgeNodes},
		{"D5", "no other device node", judgeOtherDevices},
		{"D6", "no socket of a host daemon", judgeSockets},
		{"D7", "the driver's view of other GPUs is masked", judgeDriverPaths},
		{"D10", "own, sized /dev/shm", judgeShm},
		{"K1", "seccomp filter in force", judgeSeccomp},
		{"K4", "kernel paths masked or read-only", judgeKernelPaths},
		{"K5", "mounts are nosuid,nodev", judgeMounts},
		{"R1", "limits in force", judgeLimits},
	}
}

// canaryControl is the one that depends on a process of ours being able to run. Where
// it could not, nothing is known: no doing of the tenant's keeps it from running.
const canaryControl = "D3"

// Judge decides every control from the facts alone.
func Judge(want Want, facts Facts) []spec.Control {
	var controls []spec.Control
	for _, j := range judgements() {
		f := j.judge(want, facts)
		controls = append(controls, spec.Control{
			ID: j.id, Name: j.name, Expected: f.expected, Found: f.found, Pass: f.pass,
			Unknown: j.id == canaryControl && facts.Tries.Err != nil,
		})
	}
	return controls
}

// suspects are the threads that look wrong, each judged beside the task's first.
// Most are like that one, which then is all there is to judge.
func suspects(want Want, facts Facts) map[int]bool {
	wrong := map[int]bool{}
	all := facts.Threads.Value
	first := slices.DeleteFunc(slices.Clone(all), func(t Thread) bool { return t.TID != facts.TID })
	facts.Threads.Value = first
	firstPasses := threadsPass(want, facts)
	for _, t := range all {
		if firstPasses && t.like(first[0]) {
			continue
		}
		facts.Threads.Value = append(slices.Clip(first), t)
		if !threadsPass(want, facts) {
			wrong[t.TID] = true
		}
	}
	return wrong
}

// like says that two threads differ in nothing that is judged.
func (t Thread) like(other Thread) bool {
	return t.NoNewPrivs == other.NoNewPrivs && t.Seccomp == other.Seccomp &&
		maps.Equal(t.Caps, other.Caps) && maps.Equal(t.Namespaces, other.Namespaces)
}

func threadsPass(want Want, facts Facts) bool {
	for _, judge := range []func(Want, Facts) finding{judgeNamespaces, judgeCapabilities, judgeNoNewPrivs, judgeSeccomp} {
		if !judge(want, facts).pass {
			return false
		}
	}
	return true
}

// conclude passes without problems, saying what was seen, and else lists them.
func conclude(expected, seen string, problems []string) finding {
	if len(problems) == 0 {
		return finding{expected, seen, true}
	}
	return finding{expected, brief(problems), false}
}

func unreadable(expected string, err error) finding {
	return finding{expected, "could not look: " + err.Error(), false}
}

// brief keeps a finding to a line: the tenant decides how many problems there
// are and how they are called.
func brief(list []string) string {
	const most = 5
	more := ""
	if len(list) > most {
		more = fmt.Sprintf("; and %d more", len(list)-most)
		list = list[:most]
	}
	return fault.Printable(strings.Join(list, "; ")) + more
}
