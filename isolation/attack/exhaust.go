package attack

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// exhaustion: bounds that hold on any machine. Those that need cgroup controllers
// are the audit's control R1 and the lab's.
func exhaustion() []Case {
	return []Case{
		{"fill /dev/shm", fill("/dev/shm/file"), "ENOSPC"},
		{"fill /dev", fill("/dev/file"), "ENOSPC"},
		{"fill /dev with files", files("/dev/d"), "ENOSPC"},
		{"open files without end", descriptors, "EMFILE"},
		{"raise the limit of open files", raise(unix.RLIMIT_NOFILE), "EPERM"},
		{"raise the limit of locked memory", raise(unix.RLIMIT_MEMLOCK), "EPERM"},
		{"raise the limit of core dumps", raise(unix.RLIMIT_CORE), "EPERM"},
		{"lock memory without end", lockMemory, "ENOMEM"},
	}
}

// fill writes until it is refused, at most 1 GiB, and takes it away again.
func fill(path string) func() error {
	return func() error {
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		defer os.Remove(path)
		defer f.Close()
		for block := make([]byte, 1<<20); ; {
			if n, err := f.Write(block); err != nil {
				return err
			} else if end, _ := f.Seek(0, 1); n == 0 || end > 1<<30 {
				return nil
			}
		}
	}
}

// files makes folders until it is refused, at most a million.
func files(dir string) func() error {
	return func() error {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		name := make([]byte, 0, 64)
		for i := range 1 << 20 {
			name = append(append(name[:0], dir...), '/', byte('a'+i%16), byte('a'+i/16%16), byte('a'+i/256%16), byte('a'+i/4096%16), byte('a'+i/65536%16))
			if err := unix.Mkdir(string(name), 0o700); err != nil {
				return err
			}
		}
		return nil
	}
}

func descriptors() error {
	for range 2 << 20 {
		if _, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
	}
	return nil
}

func raise(resource int) func() error {
	return func() error {
		var limit unix.Rlimit
		if err := unix.Getrlimit(resource, &limit); err != nil {
			return err
		}
		if limit.Max == unix.RLIM_INFINITY {
			return errors.New("it is unlimited")
		}
		limit.Max++
		return unix.Setrlimit(resource, &limit)
	}
}

func lockMemory() error {
	memory, err := unix.Mmap(-1, 0, 1<<30, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return err
	}
	return unix.Mlock(memory)
}
