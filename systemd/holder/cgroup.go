package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// mount is where cgroup v2 lies, and the children of the unit's cgroup that hold
// no tenant: this process's, and where systemd runs the commands of a delegated unit.
const (
	mount   = "/sys/fs/cgroup"
	holder  = "holder"
	control = ".control"
)

// own is the unit's cgroup of the calling process: its own, or the one above where
// it already is in a child that is no tenant's.
func own(root, procCgroup string) (string, error) {
	for line := range strings.Lines(procCgroup) {
		path, unified := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::")
		if !unified {
			continue
		}
		if base := filepath.Base(path); base == holder || base == control {
			path = filepath.Dir(path)
		}
		if path == "/" {
			return "", errors.New("find cgroup: this process is in the root cgroup: a unit with Delegate=yes runs it")
		}
		return filepath.Join(root, path), nil
	}
	return "", errors.New("find cgroup: no cgroup v2")
}

// stay moves the process out of its tenants' way, says that it is ready and stays.
// Each of signals asks it to end; it does once nobody else is left in dir.
func stay(dir string, ready func() error, signals <-chan os.Signal) error {
	child := filepath.Join(dir, holder)
	if err := os.Mkdir(child, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make cgroup of the holder: %w", err)
	}
	if err := os.WriteFile(filepath.Join(child, "cgroup.procs"), []byte("0"), 0); err != nil {
		return fmt.Errorf("enter cgroup of the holder: %w", err)
	}
	if err := ready(); err != nil {
		return err
	}
	for range signals {
		held, err := occupied(dir)
		if err != nil {
			return err
		}
		if len(held) == 0 {
			return nil
		}
		fmt.Fprintf(os.Stderr, "told to end; stays for %s: systemctl stop gpuhost-tenants ends them\n", strings.Join(held, " "))
	}
	return nil
}

// settle is how often the end of tenants is looked for, and dyingLimit how long the
// kernel may take over processes that are killed.
const (
	settle     = 50 * time.Millisecond
	dyingLimit = 5 * time.Second
)

// end asks every process below dir but the holder to end, and kills what is left
// when ctx ends.
func end(ctx context.Context, dir string) error {
	if err := signalAll(dir, unix.SIGTERM); err != nil {
		return err
	}
	if empty, err := awaitEmpty(ctx, dir); empty || err != nil {
		return err
	}
	held, err := occupied(dir)
	for _, name := range held {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, name, "cgroup.kill"), []byte("1"), 0))
	}
	if err != nil {
		return err
	}
	dying, cancel := context.WithTimeout(context.WithoutCancel(ctx), dyingLimit)
	defer cancel()
	if empty, err := awaitEmpty(dying, dir); !empty && err == nil {
		return fmt.Errorf("end tenants: killed processes are still there after %v", dyingLimit)
	}
	return err
}

func awaitEmpty(ctx context.Context, dir string) (bool, error) {
	tick := time.NewTicker(settle)
	defer tick.Stop()
	for {
		held, err := occupied(dir)
		if err != nil || len(held) == 0 {
			return true, err
		}
		select {
		case <-ctx.Done():
			return false, nil
		case <-tick.C:
		}
	}
}

// occupied names the children of dir that hold somebody else.
func occupied(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list cgroups: %w", err)
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() || e.Name() == holder || e.Name() == control {
			continue
		}
		events, err := os.ReadFile(filepath.Join(dir, e.Name(), "cgroup.events"))
		if err == nil && slices.Contains(strings.Split(string(events), "\n"), "populated 1") {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
