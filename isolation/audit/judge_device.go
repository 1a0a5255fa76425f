package audit

import (
	"fmt"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/isolation/cgroup"
)

// judgeInner interprets runc's program: whatever it lets through, apart from what
// runc always adds and the outer program takes back, must be in the grant, and
// the grant must be let through, or the tenant paid for nothing.
func judgeInner(want Want, f Facts) finding {
	expected := fmt.Sprintf("one program; read and write of %d granted and the standard nodes only", len(want.Nodes))
	if f.Effective.Err != nil {
		return unreadable(expected, f.Effective.Err)
	}
	inner := withoutOuter(f)
	if len(inner) != 1 {
		return finding{expected, fmt.Sprintf("%d inner programs", len(inner)), false}
	}
	rules := cgroup.Rules(want.Nodes)
	excess, err := cgroup.Excess(inner[0].Insns, func(a cgroup.Access) bool {
		return cgroup.Allows(rules, a) || addedByRunc(a)
	})
	if err != nil {
		return unreadable(expected, err)
	}
	var problems []string
	for _, a := range excess {
		problems = append(problems, "lets through "+a.String())
	}
	for _, n := range want.Nodes {
		access := cgroup.Access{Type: unix.BPF_DEVCG_DEV_CHAR, Mode: unix.BPF_DEVCG_ACC_READ | unix.BPF_DEVCG_ACC_WRITE, Major: n.Major, Minor: n.Minor}
		if allowed, err := cgroup.Decide(inner[0].Insns, access); err != nil || !allowed {
			problems = append(problems, "refuses the granted "+n.Name)
		}
	}
	return conclude(expected, fmt.Sprintf("program %d, tag %s, does so", inner[0].ID, inner[0].Tag), problems)
}

// addedByRunc is what runc puts into every program: mknod, and tun.
func addedByRunc(a cgroup.Access) bool {
	isTun := a.Type == unix.BPF_DEVCG_DEV_CHAR && number{a.Major, a.Minor} == tun()
	return a.Mode&unix.BPF_DEVCG_ACC_MKNOD != 0 || isTun
}

func withoutOuter(f Facts) []cgroup.Attached {
	return slices.DeleteFunc(slices.Clone(f.Effective.Value), func(a cgroup.Attached) bool {
		return slices.ContainsFunc(f.Outer.Value, func(o cgroup.Attached) bool { return o.ID == a.ID })
	})
}

func judgeOuter(want Want, f Facts) finding {
	const expected = "one program, equal to the locally built one of the grant, asked for the task"
	for _, err := range []error{f.Outer.Err, f.Effective.Err} {
		if err != nil {
			return unreadable(expected, err)
		}
	}
	if len(f.Outer.Value) != 1 {
		return finding{expected, fmt.Sprintf("%d programs on the parent cgroup", len(f.Outer.Value)), false}
	}
	outer := f.Outer.Value[0]
	for _, known := range []struct {
		rules []cgroup.Rule
		found string
		pass  bool
	}{
		{cgroup.Rules(want.Nodes), "program %d, tag %s, is it", true},
		{nil, "program %d, tag %s, is the fence: every open is refused", false},
	} {
		same, err := outer.Is(known.rules)
		if err != nil {
			return unreadable(expected, err)
		}
		if same {
			asked := slices.ContainsFunc(f.Effective.Value, func(a cgroup.Attached) bool { return a.ID == outer.ID })
			return finding{expected, fmt.Sprintf(known.found, outer.ID, outer.Tag), known.pass && asked}
		}
	}
	return finding{expected, fmt.Sprintf("program %d, tag %s, is another one", outer.ID, outer.Tag), false}
}

// judgeCanary reads what happened when it was tried. EPERM is the programs'
// answer; ENXIO, EACCES and success all mean that they let the try through.
func judgeCanary(want Want, f Facts) finding {
	const expected = "EPERM for every forbidden node, none for granted ones; other tenants' nodes closed to the tenant"
	if f.Tries.Err != nil {
		return unreadable(expected, f.Tries.Err)
	}
	var problems []string
	refused, granted := 0, 0
	for _, r := range f.Tries.Value.Root {
		permitted := slices.ContainsFunc(want.Nodes, func(n isolation.Node) bool { return n.Major == r.Major && n.Minor == r.Minor })
		switch {
		case permitted && r.Denied():
			problems = append(problems, fmt.Sprintf("the granted %d:%d is refused", r.Major, r.Minor))
		case permitted && r.Errno == syscall.ENODEV:
			problems = append(problems, fmt.Sprintf("in the place of the granted %d:%d lies another file", r.Major, r.Minor))
		case permitted:
			granted++
		case !r.Denied():
			problems = append(problems, fmt.Sprintf("%d:%d answered %s", r.Major, r.Minor, errnoName(r.Errno)))
		default:
			refused++
		}
	}
	for _, r := range f.Tries.Value.Tenant {
		if r.Errno != syscall.EACCES && !r.Denied() {
			problems = append(problems, fmt.Sprintf("as the tenant, another's %d:%d answered %s", r.Major, r.Minor, errnoName(r.Errno)))
		}
	}
	if refused == 0 {
		problems = append(problems, "nothing was tried")
	}
	return conclude(expected, fmt.Sprintf("%d refused, %d let through, %d of others closed", refused, granted, len(f.Tries.Value.Tenant)), problems)
}

func errnoName(errno syscall.Errno) string {
	if errno == 0 {
		return "success"
	}
	return unix.ErrnoName(errno)
}

// judgeNodes compares the granted nodes one by one.
func judgeNodes(want Want, f Facts) finding {
	owner := want.Lease.NodeOwner()
	expected := fmt.Sprintf("%d nodes, 0600, owned by %d", len(want.Nodes), owner)
	if f.Devices.Err != nil {
		return unreadable(expected, f.Devices.Err)
	}
	var problems []string
	for _, n := range want.Nodes {
		path := "/dev/" + n.Name
		i := slices.IndexFunc(f.Devices.Value, func(d Device) bool { return d.Path == path })
		if i < 0 {
			problems = append(problems, path+" is missing")
			continue
		}
		right := Device{Path: path, Major: n.Major, Minor: n.Minor, UID: owner, GID: owner, Mode: 0o600}
		if d := f.Devices.Value[i]; d != right {
			problems = append(problems, d.describe())
		}
	}
	return conclude(expected, fmt.Sprintf("all %d so", len(want.Nodes)), problems)
}

func (d Device) describe() string {
	kind := "character"
	if d.Block {
		kind = "block"
	}
	return fmt.Sprintf("%s is %s device %d:%d, %#o of %d:%d", d.Path, kind, d.Major, d.Minor, d.Mode, d.UID, d.GID)
}

// judgeOtherDevices finds nodes that neither the grant nor the standard set
// explains. A pty is explained by its major: their number is the tenant's.
func judgeOtherDevices(want Want, f Facts) finding {
	const expected = "only the granted and the standard nodes"
	if f.Devices.Err != nil {
		return unreadable(expected, f.Devices.Err)
	}
	var problems []string
	for _, d := range f.Devices.Value {
		if !explained(want, d) {
			problems = append(problems, d.describe())
		}
	}
	return conclude(expected, fmt.Sprintf("%d nodes, all of them known", len(f.Devices.Value)), problems)
}

func explained(want Want, d Device) bool {
	if d.Block {
		return false
	}
	if n, ok := standardDevices()[d.Path]; ok && n == (number{d.Major, d.Minor}) {
		return true
	}
	granted := slices.ContainsFunc(want.Nodes, func(n isolation.Node) bool {
		return d.Path == "/dev/"+n.Name && d.Major == n.Major && d.Minor == n.Minor
	})
	return granted || d.Major == majorPTY
}
