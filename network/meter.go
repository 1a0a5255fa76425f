package network

import (
	"slices"

	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/network/ruleset"
)

// Meter makes a total of counters that begin anew each time their instance starts.
// It is journalled, and each change of it comes before the change of the counters
// that it is about; so it is right wherever the process ends:
//
//	note     Total has all that the counters show      and then they go
//	begin    nothing of the counters is in Total       and then they are made, at zero
//
// Total and what the counters show beyond Seen is all there ever was.
type Meter struct {
	Total Traffic `json:"total"`
	Seen  Traffic `json:"seen"` // what of the counters there are is in Total
}

// At is the total while the counters show a reading; the zero reading is that of
// counters that are not there.
func (m Meter) At(reading Traffic) Traffic {
	if !reading.covers(m.Seen) {
		return m.Total.plus(reading) // they are others: somebody took away those that were seen
	}
	return m.Total.plus(reading.minus(m.Seen))
}

// Note takes what the counters show into the total. Twice is once.
func (m Meter) Note(reading Traffic) Meter { return Meter{Total: m.At(reading), Seen: reading} }

// Begin is the meter of counters that are about to be made.
func (m Meter) Begin() Meter { return Meter{Total: m.Total} }

func (t *Traffic) counts() []*Count {
	return []*Count{&t.IntranetIngress, &t.IntranetEgress, &t.InternetIngress, &t.InternetEgress}
}

// covers says whether counters that showed other may show t later.
func (t Traffic) covers(other Traffic) bool {
	theirs := other.counts()
	for i, c := range t.counts() {
		if c.Packets < theirs[i].Packets || c.Bytes < theirs[i].Bytes {
			return false
		}
	}
	return true
}

func (t Traffic) plus(other Traffic) Traffic {
	theirs := other.counts()
	for i, c := range t.counts() {
		c.Packets, c.Bytes = c.Packets+theirs[i].Packets, c.Bytes+theirs[i].Bytes
	}
	return t
}

func (t Traffic) minus(other Traffic) Traffic {
	theirs := other.counts()
	for i, c := range t.counts() {
		c.Packets, c.Bytes = c.Packets-theirs[i].Packets, c.Bytes-theirs[i].Bytes
	}
	return t
}

// Metered says of a VPC's plan whose counters end with it, and whose begin.
func Metered(p plan.Plan, have Have) (end, begin []spec.UID) {
	var before []spec.UID
	if have.Router != nil {
		before = instancesOfCounters(have.Router.Counters)
	}
	for _, step := range p.Steps {
		switch args := step.Args.(type) {
		case LoadArgs:
			after := instancesOfCounters(args.Rules.Router.Counters)
			if ruleset.Diff(have.Router, args.Rules.Router).Replace != "" {
				return before, after
			}
			return apart(before, after), apart(after, before)
		default:
			if step.Verb == VerbClose {
				return before, nil
			}
		}
	}
	return nil, nil
}

// instancesOfCounters are whose counters these are, sorted.
func instancesOfCounters(names []string) []spec.UID {
	var uids []spec.UID
	for _, name := range names {
		if uid, ok := instanceOfCounter(name); ok {
			uids = append(uids, uid)
		}
	}
	slices.Sort(uids)
	return slices.Compact(uids)
}

// apart are those of one list that are not in another; both are sorted.
func apart(of, others []spec.UID) []spec.UID {
	var out []spec.UID
	for _, uid := range of {
		if _, there := slices.BinarySearch(others, uid); !there {
			out = append(out, uid)
		}
	}
	return out
}
