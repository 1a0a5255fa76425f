package oci

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Verify refuses a specification that grants anything beyond what in asks for:
// it is the second pair of eyes on [Build], and on a specification that was
// stored meanwhile.
func Verify(s *specs.Spec, in Input) error {
	if s.Process == nil || s.Linux == nil || s.Root == nil {
		return refuse("process, linux or root is missing")
	}
	for _, check := range []func(*specs.Spec, Input) error{verifyForeign, verifyMounts, verifyProcess, verifyLinux} {
		if err := check(s, in); err != nil {
			return err
		}
	}
	return nil
}

// verifyForeign refuses the parts that are never used here, hooks first.
func verifyForeign(s *specs.Spec, _ Input) error {
	switch {
	case s.Hooks != nil:
		return refuse("hooks are never run")
	case s.VM != nil, s.Windows != nil, s.Solaris != nil, s.ZOS != nil, s.FreeBSD != nil:
		return refuse("a section of another platform is there")
	case len(s.Linux.Devices) > 0, len(s.Linux.NetDevices) > 0:
		return refuse("devices are bind-mounted, never made by runc")
	case s.Linux.IntelRdt != nil, s.Linux.Personality != nil, s.Linux.MountLabel != "":
		return refuse("intelRdt, personality or mountLabel is set")
	}
	return nil
}

func verifyMounts(s *specs.Spec, in Input) error {
	known := mounts(in)
	for _, m := range s.Mounts {
		same := slices.ContainsFunc(known, func(k specs.Mount) bool {
			return k.Destination == m.Destination && k.Source == m.Source && k.Type == m.Type && slices.Equal(k.Options, m.Options)
		})
		if !same || m.UIDMappings != nil || m.GIDMappings != nil {
			return refuse("mount of %q on %q is not one of ours", m.Source, m.Destination)
		}
	}
	return nil
}

func verifyProcess(s *specs.Spec, _ Input) error {
	p := s.Process
	if !p.NoNewPrivileges {
		return refuse("no_new_privs is off")
	}
	if p.Capabilities == nil {
		return refuse("capabilities are not set")
	}
	c := p.Capabilities
	if len(c.Inheritable) > 0 || len(c.Ambient) > 0 {
		return refuse("inheritable or ambient capabilities are set")
	}
	for _, name := range slices.Concat(c.Bounding, c.Effective, c.Permitted) {
		if !slices.Contains(capabilities(), name) {
			return refuse("capability %s is not granted to tenants", name)
		}
	}
	if p.User.UID > maxID || p.User.GID > maxID || len(p.User.AdditionalGids) > 0 {
		return refuse("user %d:%d is outside the tenant's range", p.User.UID, p.User.GID)
	}
	return nil
}

func verifyLinux(s *specs.Spec, in Input) error {
	l, want := s.Linux, linux(in)
	switch {
	case in.Lease.IDs.Size != maxID+1 || in.Lease.IDs.Start < maxID+1:
		return refuse("id range %d+%d is not a tenant's", in.Lease.IDs.Start, in.Lease.IDs.Size)
	case !slices.Equal(l.UIDMappings, want.UIDMappings) || !slices.Equal(l.GIDMappings, want.GIDMappings):
		return refuse("the user namespace maps other ids than the tenant's range")
	case !slices.Equal(l.Namespaces, want.Namespaces):
		return refuse("not every namespace is new")
	case l.CgroupsPath != want.CgroupsPath:
		return refuse("cgroup %q is not the instance's", l.CgroupsPath)
	case l.Seccomp == nil || l.Seccomp.DefaultAction != specs.ActErrno:
		return refuse("the seccomp profile does not refuse by default")
	case !containsAll(l.MaskedPaths, want.MaskedPaths) || !containsAll(l.ReadonlyPaths, want.ReadonlyPaths):
		return refuse("a masked or read-only path is missing")
	case l.RootfsPropagation != want.RootfsPropagation:
		return refuse("mounts propagate %q", l.RootfsPropagation)
	}
	return verifyDevices(l.Resources, want.Resources)
}

func verifyDevices(have, want *specs.LinuxResources) error {
	if have == nil || len(have.Devices) != len(want.Devices) {
		return refuse("the device rules are not the lease's")
	}
	for i, rule := range have.Devices {
		w := want.Devices[i]
		same := rule.Allow == w.Allow && rule.Type == w.Type && rule.Access == w.Access &&
			equal(rule.Major, w.Major) && equal(rule.Minor, w.Minor)
		if !same {
			return refuse("device rule %d is not the lease's", i)
		}
	}
	return nil
}

func equal(a, b *int64) bool { return (a == nil) == (b == nil) && (a == nil || *a == *b) }

func containsAll(list, all []string) bool {
	for _, s := range all {
		if !slices.Contains(list, s) {
			return false
		}
	}
	return true
}
