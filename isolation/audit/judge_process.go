package audit

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

func judgeIDs(want Want, f Facts) finding {
	ids := want.Lease.IDs
	idMap := fmt.Sprintf("0 %d %d", ids.Start, ids.Size)
	expected := fmt.Sprintf("uids and gids %s; / owned by %d", idMap, ids.Start)
	for _, err := range []error{f.UIDMap.Err, f.GIDMap.Err, f.RootOwner.Err} {
		if err != nil {
			return unreadable(expected, err)
		}
	}
	found := fmt.Sprintf("uids %s; gids %s; / owned by %d", f.UIDMap.Value, f.GIDMap.Value, f.RootOwner.Value)
	pass := f.UIDMap.Value == idMap && f.GIDMap.Value == idMap && f.RootOwner.Value == ids.Start
	return finding{expected, found, pass}
}

func judgeNamespaces(_ Want, f Facts) finding {
	expected := strings.Join(namespaceKinds(), ", ") + " of its own, the network's owned by its user namespace"
	for _, err := range []error{f.Host.Err, f.Peers.Err, f.Threads.Err, f.NetOwner.Err} {
		if err != nil {
			return unreadable(expected, err)
		}
	}
	threads := f.Threads.Value
	var problems []string
	for i, t := range threads {
		if i > 0 && maps.Equal(t.Namespaces, threads[i-1].Namespaces) {
			continue // of one process: what is wrong is said once
		}
		problems = append(problems, sharedNamespaces(t, f.Host.Value, "the host")...)
		for _, uid := range slices.Sorted(maps.Keys(f.Peers.Value)) {
			problems = append(problems, sharedNamespaces(t, f.Peers.Value[uid], "instance "+string(uid))...)
		}
	}
	problems = append(problems, foreignMembers(threads, f)...)
	return conclude(expected, fmt.Sprintf("so in %d threads, apart from %d other instances", len(threads), len(f.Peers.Value)), problems)
}

func sharedNamespaces(t Thread, other Namespaces, whose string) (problems []string) {
	for _, kind := range namespaceKinds() {
		if link := t.Namespaces[kind]; link == "" || link == other[kind] {
			problems = append(problems, fmt.Sprintf("thread %d (%s) shares %s with %s", t.TID, t.Name, kind, whose))
		}
	}
	return problems
}

// foreignMembers finds threads in another user namespace than the task's, and a
// network namespace that somebody else owns.
func foreignMembers(threads []Thread, f Facts) (problems []string) {
	i := slices.IndexFunc(threads, func(t Thread) bool { return t.TID == f.TID })
	if i < 0 {
		return []string{fmt.Sprintf("thread %d is gone", f.TID)}
	}
	user := threads[i].Namespaces["user"]
	if f.NetOwner.Value != user {
		problems = append(problems, fmt.Sprintf("the network namespace is owned by %s, not %s", f.NetOwner.Value, user))
	}
	for _, t := range threads {
		if t.Namespaces["user"] != user {
			problems = append(problems, fmt.Sprintf("thread %d (%s) is in %s", t.TID, t.Name, t.Namespaces["user"]))
		}
	}
	return problems
}

func judgeCapabilities(_ Want, f Facts) finding {
	var names []string
	for _, c := range permittedCaps() {
		names = append(names, c.name)
	}
	return judgeProcesses("at most "+strings.Join(names, " "), f, func(t Thread) string {
		for _, set := range capSets() {
			mask, known := t.Caps[set]
			if excess := mask &^ permittedMask(); excess != 0 || !known {
				return fmt.Sprintf("holds %#x beyond them in %s", excess, set)
			}
		}
		return ""
	})
}

func judgeNoNewPrivs(_ Want, f Facts) finding {
	return judgeProcesses("NoNewPrivs: 1 in every process", f, func(t Thread) string {
		return differs("NoNewPrivs", t.NoNewPrivs, "1")
	})
}

func judgeSeccomp(_ Want, f Facts) finding {
	return judgeProcesses("Seccomp: 2 in every process", f, func(t Thread) string {
		return differs("Seccomp", t.Seccomp, "2")
	})
}

func differs(key, have, want string) string {
	if have == want {
		return ""
	}
	return fmt.Sprintf("has %s: %s", key, have)
}

// judgeProcesses asks one question about every process, of the thread that leads
// it; the answer is a problem or "". In a created task, and on the way in by exec,
// threads of runc's wait beside the one that becomes the tenant's. They have
// neither dropped capabilities nor a filter, and end with exec.
func judgeProcesses(expected string, f Facts, ask func(Thread) string) finding {
	if f.Threads.Err != nil {
		return unreadable(expected, f.Threads.Err)
	}
	leaders := slices.DeleteFunc(slices.Clone(f.Threads.Value), func(t Thread) bool { return !t.Leads })
	if len(leaders) == 0 {
		return finding{expected, "no process left to look at", false}
	}
	var problems []string
	for _, t := range leaders {
		if problem := ask(t); problem != "" {
			problems = append(problems, fmt.Sprintf("process %d (%s) %s", t.PID, t.Name, problem))
		}
	}
	return conclude(expected, fmt.Sprintf("so in %d processes", len(leaders)), problems)
}
