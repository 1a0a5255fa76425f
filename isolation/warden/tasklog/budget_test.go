package tasklog

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/gpuhost/gpuhost/isolation/warden/fifo"
	"github.com/gpuhost/gpuhost/isolation/warden/logfile"
)

// Whatever a tenant does and when: what was written by any moment is at most the
// burst, the rate times what has passed, and the last read. Who waits as long as told
// may go on.
func TestBudget(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := time.Unix(1_800_000_000, 0)
		now := start
		b := newBudget(now)
		const read = 3 << 20 // records of one read of empty lines
		var spent int64
		for range rapid.IntRange(1, 200).Draw(t, "turns") {
			if wait := b.pause(now); wait > 0 {
				now = now.Add(wait)
				if again := b.pause(now); again > 0 {
					t.Fatalf("it waited %v and is to wait %v more", wait, again)
				}
			}
			n := rapid.IntRange(0, read).Draw(t, "bytes")
			b.spend(n)
			spent += int64(n)
			if allowed := burst + int64(now.Sub(start).Seconds()*rate) + read; spent > allowed {
				t.Fatalf("%d bytes after %v, at most %d", spent, now.Sub(start), allowed)
			}
			now = now.Add(time.Duration(rapid.Int64Range(0, 30e9).Draw(t, "idle")))
		}
	})
}

// TestAFloodWaits has no time pass: a task that never stops writing gets what is left of its
// budget written and then waits in its own write.
func TestAFloodWaits(t *testing.T) {
	pipes, logs := t.TempDir(), t.TempDir()
	for _, name := range []string{fifo.Stdout, fifo.Stderr} {
		if err := fifo.Make(filepath.Join(pipes, name)); err != nil {
			t.Fatal(err)
		}
	}
	w, err := prepare(Options{Pipes: pipes, Logs: logs})
	if err != nil {
		t.Fatal(err)
	}
	const left = 1 << 20
	now := time.Unix(1_800_000_000, 0)
	w.clock, w.budget = func() time.Time { return now }, &budget{left: left, until: now}
	ended := make(chan struct{})
	go func() { defer close(ended); w.run() }()

	flood, err := os.OpenFile(filepath.Join(pipes, fifo.Stdout), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := io.Copy(flood, endless{})
		wrote <- err
	}()
	read, err := logfile.Open(logs, logfile.Options{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	for seen := 0; seen < left; {
		e, err := read.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		seen += len(e.Append(nil))
	}
	if err := os.Remove(filepath.Join(pipes, fifo.Stdout)); err != nil {
		t.Fatal(err)
	}
	<-ended
	for _, s := range w.streams {
		unix.Close(s.fd)
	}
	if err := <-wrote; !errors.Is(err, unix.EPIPE) {
		t.Errorf("the flood ended with %v", err)
	}
	// The last read, and what the pipe held at the end.
	const most = left + len(w.scratch) + drainLimit
	if size := folderSize(t, logs); size < left || size > 2*most {
		t.Errorf("%d bytes of log, want at least %d and not much more", size, left)
	}
}

// endless is a task's output.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
		if i%100 == 99 {
			p[i] = '\n'
		}
	}
	return len(p), nil
}

func folderSize(t *testing.T, dir string) (size int) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		size += int(info.Size())
	}
	return size
}
