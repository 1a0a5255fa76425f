package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// wanted are the controllers that limits are made with; others stay off.
func wanted() []string {
	return []string{"cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids", "rdma"}
}

// Controllers lists the controllers that limits may use here, sorted: those the
// kernel has and that no other hierarchy took.
func (t *Tree) Controllers(context.Context) ([]string, error) {
	have, err := words(filepath.Join(t.paths.CgroupMount, "cgroup.controllers"))
	if err != nil {
		return nil, err
	}
	var usable []string
	for _, c := range wanted() {
		if slices.Contains(have, c) {
			usable = append(usable, c)
		}
	}
	return usable, nil
}

// delegate enables the controllers on every level above dir and on dir itself,
// whose child runc makes.
func (t *Tree) delegate(dir string) error {
	below, err := filepath.Rel(t.paths.CgroupMount, dir)
	if err != nil {
		return fmt.Errorf("locate %s below %s: %w", dir, t.paths.CgroupMount, err)
	}
	level := t.paths.CgroupMount
	for _, name := range append([]string{"."}, strings.Split(below, "/")...) {
		level = filepath.Join(level, name)
		if err := enable(level); err != nil {
			return err
		}
	}
	return nil
}

func enable(dir string) error {
	available, err := words(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "cgroup.subtree_control")
	enabled, err := words(file)
	if err != nil {
		return err
	}
	return enableEach(dir, missing(available, enabled), func(c string) error {
		return os.WriteFile(file, []byte("+"+c), 0)
	})
}

func missing(available, enabled []string) []string {
	return slices.DeleteFunc(wanted(), func(c string) bool {
		return !slices.Contains(available, c) || slices.Contains(enabled, c)
	})
}

// enableEach goes one by one and to the end: a controller that the kernel refuses
// (cpu with real-time tasks about) must not take the others with it. What was
// refused is an error all the same, or an instance would run without a limit.
func enableEach(dir string, controllers []string, write func(controller string) error) error {
	var refused []error
	for _, c := range controllers {
		err := write(c)
		switch {
		case errors.Is(err, unix.EBUSY):
			refused = append(refused, fault.New(fault.Busy, "enable controller "+c, "%s holds processes itself: %w", dir, err).
				WithHint("move them into a child cgroup: a unit with Delegate=yes does"))
		case err != nil:
			refused = append(refused, fmt.Errorf("enable controller %s on %s: %w", c, dir, err))
		}
	}
	return errors.Join(refused...)
}

func words(file string) ([]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read controllers: %w", err)
	}
	return strings.Fields(string(text)), nil
}
