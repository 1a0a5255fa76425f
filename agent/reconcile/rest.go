package reconcile

// A lane is at rest when its last run left nothing to do and nothing was asked of
// it since. A plan from the cache takes such a lane at its word; see
// [Loop.Preview]. Every write and every event of the operating system asks
// something of the lanes it concerns, and the resync asks all of them in turn: so
// what the cache says is never older than one resync.

// askLocked notes that something is asked of a lane, which is not at rest then.
func (l *lanes) askLocked(ln *lane) {
	l.asked++
	ln.asked = l.asked
}

// disturb ends a lane's rest without asking for a run: who calls it sees to it.
func (l *lanes) disturb(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.askLocked(l.getLocked(key))
}

// begin says that a lane's object is being worked at, so that it is not at rest
// until rest is told what begin returned.
func (l *lanes) begin(key string) (asked uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ln := l.getLocked(key)
	ln.rested = 0
	return ln.asked
}

// rest notes that work left nothing to do of all that was asked before it began.
// What was asked meanwhile is still to be done.
func (l *lanes) rest(key string, asked uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ln := l.lane[key]; ln != nil && ln.asked == asked {
		ln.rested = asked
	}
}

// atRest says whether a lane is at rest.
func (l *lanes) atRest(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	ln := l.lane[key]
	return ln != nil && ln.rests()
}

// resting are the lanes at rest.
func (l *lanes) resting() map[string]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[string]bool, len(l.lane))
	for key, ln := range l.lane {
		if ln.rests() {
			out[key] = true
		}
	}
	return out
}

func (ln *lane) rests() bool { return ln.rested == ln.asked }
