package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// signalAll signals the processes of every occupied child. Whoever is gone by then
// needs none.
func signalAll(dir string, signal unix.Signal) error {
	held, err := occupied(dir)
	if err != nil {
		return err
	}
	for _, name := range held {
		err := filepath.WalkDir(filepath.Join(dir, name), func(path string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && e.Name() == "cgroup.procs" {
				signalEach(path, signal)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func signalEach(list string, signal unix.Signal) {
	text, err := os.ReadFile(list)
	if err != nil {
		return // the cgroup is gone
	}
	for _, word := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(word); err == nil && pid > 0 {
			_ = unix.Kill(pid, signal) // it may have ended
		}
	}
}
