package reconcile

import (
	"fmt"
	"time"

	"github.com/gpuhost/gpuhost/agent/spec"
)

// Suspect notes that a control of a running instance was not found as granted.
// With fence the instance is fenced: it opens no device any more until the
// operator restarts it.
func (l *Loop) Suspect(o *spec.Object, c spec.Control, fence bool) {
	text := fmt.Sprintf("control %s (%s): expected %s, found %s", c.ID, c.Name, c.Expected, c.Found)
	l.mu.Lock()
	known := l.suspects[o.Metadata.UID]
	if l.suspects[o.Metadata.UID] = runOf(o); fence {
		l.fenced[o.Metadata.UID] = runOf(o)
	}
	l.mu.Unlock()
	if known != runOf(o) {
		l.event(o, "AuditFailed", text)
	}
	l.TriggerInstance(o.Metadata.UID)
}

// isFenced says whether the instance was fenced in the run it is in. A restart is
// a new run, with a new task.
func (l *Loop) isFenced(o *spec.Object) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fenced[o.Metadata.UID] == runOf(o)
}

// aliveWithin is how long the loop may be silent before the watchdog is not fed.
const aliveWithin = time.Minute

// Alive says whether the loop still turns: its beat goes through the lanes.
func (l *Loop) Alive() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Now().Sub(l.beat) < aliveWithin
}
