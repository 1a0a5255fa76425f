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
	for _, err := range []error{f.Host.Err, f.Peers.Err, f.Processes.Err, f.NetOwner.Err} {
		if err != nil {
			return unreadable(expected, err)
		}
	}
	processes := f.Processes.Value
	var problems []string
	for _, p := range processes {
		problems = append(problems, sharedNamespaces(p, f.Host.Value, "the host")...)
		for _, uid := range slices.Sorted(maps.Keys(f.Peers.Value)) {
			problems = append(problems, sharedNamespaces(p, f.Peers.Value[uid], "instance "+string(uid))...)
		}
	}
	problems = append(problems, foreignMembers(processes, f)...)
	return conclude(expected, fmt.Sprintf("so in %d processes, apart from %d other instances", len(processes), len(f.Peers.Value)), problems)
}

func sharedNamespaces(p Process, other Namespaces, whose string) (problems []string) {
	for _, kind := range namespaceKinds() {
		if link := p.Namespaces[kind]; link == "" || link == other[kind] {
			problems = append(problems, fmt.Sprintf("process %d (%s) shares %s with %s", p.PID, p.Name, kind, whose))
		}
	}
	return problems
}

// foreignMembers finds processes in another user namespace than the task's, and
// a network namespace that somebody else owns.
func foreignMembers(processes []Process, f Facts) (problems []string) {
	i := slices.IndexFunc(processes, func(p Process) bool { return p.PID == f.PID })
	if i < 0 {
		return []string{fmt.Sprintf("process %d is gone", f.PID)}
	}
	user := processes[i].Namespaces["user"]
	if f.NetOwner.Value != user {
		problems = append(problems, fmt.Sprintf("the network namespace is owned by %s, not %s", f.NetOwner.Value, user))
	}
	for _, p := range processes {
		if p.Namespaces["user"] != user {
			problems = append(problems, fmt.Sprintf("process %d (%s) is in %s", p.PID, p.Name, p.Namespaces["user"]))
		}
	}
	return problems
}

func judgeCapabilities(_ Want, f Facts) finding {
	var names []string
	for _, c := range permittedCaps() {
		names = append(names, c.name)
	}
	return judgeProcesses("at most "+strings.Join(names, " "), f, func(p Process) string {
		for _, set := range capSets() {
			mask, known := p.Caps[set]
			if excess := mask &^ permittedMask(); excess != 0 || !known {
				return fmt.Sprintf("holds %#x beyond them in %s", excess, set)
			}
		}
		return ""
	})
}

func judgeNoNewPrivs(_ Want, f Facts) finding {
	return judgeProcesses("NoNewPrivs: 1 in every process", f, func(p Process) string {
		return differs("NoNewPrivs", p.NoNewPrivs, "1")
	})
}

func judgeSeccomp(_ Want, f Facts) finding {
	return judgeProcesses("Seccomp: 2 in every process", f, func(p Process) string {
		return differs("Seccomp", p.Seccomp, "2")
	})
}

func differs(key, have, want string) string {
	if have == want {
		return ""
	}
	return fmt.Sprintf("has %s: %s", key, have)
}

// judgeProcesses asks one question about every process; the answer is a problem
// or "".
func judgeProcesses(expected string, f Facts, ask func(Process) string) finding {
	if f.Processes.Err != nil {
		return unreadable(expected, f.Processes.Err)
	}
	processes := f.Processes.Value
	if len(processes) == 0 {
		return finding{expected, "no process left to look at", false}
	}
	var problems []string
	for _, p := range processes {
		if problem := ask(p); problem != "" {
			problems = append(problems, fmt.Sprintf("process %d (%s) %s", p.PID, p.Name, problem))
		}
	}
	return conclude(expected, fmt.Sprintf("so in %d processes", len(processes)), problems)
}
