package logfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func at(second int) time.Time {
	return time.Date(2026, 11, 24, 5, 0, second, 0, time.UTC)
}

// small is a writer whose segments hold about three of line's records.
func small(t testing.TB, dir string) *Writer {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWriter(root, 100, 3, func() time.Time { return at(59) })
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func line(i int) []byte {
	return Entry{Time: at(i % 60), Stream: Stdout, Text: fmt.Append(nil, i)}.Append(nil)
}

func readAll(t testing.TB, dir string, o Options) (texts []string) {
	t.Helper()
	r, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		e, err := r.Next(context.Background())
		if err == io.EOF {
			return texts
		}
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(e.Text))
	}
}

func TestRecordFormat(t *testing.T) {
	e := Entry{Time: time.Date(2026, 11, 24, 6, 41, 43, 120, time.FixedZone("", 3600)), Stream: Stderr, Partial: true, Text: []byte("a b\r")}
	got := string(e.Append(nil))
	if want := "2026-11-24T05:41:43.00000012Z stderr P a b\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, record := range []string{
		"", " ", "2026-11-24T05:41:43Z", "2026-11-24T05:41:43Z stdout", "2026-11-24T05:41:43Z stdout F",
		"2026-11-24T05:41:43Z stdin F x", "2026-11-24T05:41:43Z stdout X x", "yesterday stdout F x",
		"2026-11-24T05:41:43Z stdout FF x",
	} {
		if e, ok := Parse([]byte(record)); ok {
			t.Errorf("%q was taken for %+v", record, e)
		}
	}
}

func TestRotationKeepsTheNewest(t *testing.T) {
	dir := t.TempDir()
	w := small(t, dir)
	for i := range 20 {
		w.Append(line(i), 1)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"12", "13", "14", "15", "16", "17", "18", "19"}, readAll(t, dir, Options{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"00000005.log", "00000006.log", "00000007.log"}, names(t, dir)); diff != "" {
		t.Errorf("segments (-want +got):\n%s", diff)
	}
}

func TestTailAndSince(t *testing.T) {
	dir := t.TempDir()
	w := small(t, dir)
	for i := range 9 {
		w.Append(line(i), 1)
	}
	w.Close()
	for _, tt := range []struct {
		name    string
		options Options
		want    string
	}{
		{"all", Options{}, "0 1 2 3 4 5 6 7 8"},
		{"last one", Options{Tail: 1}, "8"},
		{"a whole segment", Options{Tail: 3}, "6 7 8"},
		{"across segments", Options{Tail: 5}, "4 5 6 7 8"},
		{"more than there is", Options{Tail: 100}, "0 1 2 3 4 5 6 7 8"},
		{"none", Options{Tail: -1}, ""},
		{"since", Options{Since: at(7)}, "7 8"},
		{"since in the tail", Options{Since: at(5), Tail: 3}, "6 7 8"},
		{"since later", Options{Since: at(30)}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := strings.Join(readAll(t, dir, tt.options), " "); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// A power cut leaves half a record: readers skip it, the next writer cuts it off.
func TestTornRecord(t *testing.T) {
	dir := t.TempDir()
	w := small(t, dir)
	w.Append(line(1), 1)
	w.Close()
	torn, err := os.OpenFile(filepath.Join(dir, segmentName(1)), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	torn.WriteString("2026-11-24T05:0")
	torn.Close()
	if got := readAll(t, dir, Options{}); len(got) != 1 {
		t.Errorf("read %q", got)
	}
	w = small(t, dir)
	w.Append(line(2), 1)
	w.Close()
	if diff := cmp.Diff([]string{"1", "2"}, readAll(t, dir, Options{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestFollowAcrossRotation(t *testing.T) {
	dir := t.TempDir()
	w := small(t, dir)
	r, err := Open(dir, Options{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for i := range 50 {
		w.Append(line(i), 1)
		e, err := r.Next(t.Context())
		if err != nil || string(e.Text) != fmt.Sprint(i) {
			t.Fatalf("entry %d: %q, %v", i, e.Text, err)
		}
	}
}

// A follower waits without polling, and its context, a Close or the folder's
// removal ends the wait.
func TestFollowEnds(t *testing.T) {
	open := func(t *testing.T) (string, *Reader) {
		dir := filepath.Join(t.TempDir(), "log")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		r, err := Open(dir, Options{Follow: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		return dir, r
	}
	t.Run("context", func(t *testing.T) {
		_, r := open(t)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if _, err := r.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("close", func(t *testing.T) {
		_, r := open(t)
		done := make(chan error)
		go func() {
			_, err := r.Next(context.Background())
			done <- err
		}()
		r.watch.Close()
		if err := <-done; !errors.Is(err, os.ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("removal", func(t *testing.T) {
		dir, r := open(t)
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Next(t.Context()); err != io.EOF {
			t.Errorf("got %v", err)
		}
	})
}

// A full disk: what does not fit is counted, nothing half is left behind, and the
// count is written once there is room.
func TestFullDiskIsCounted(t *testing.T) {
	dir := t.TempDir()
	w := small(t, dir)
	w.Append(line(1), 1)
	limitFileSize(t, 50, func() {
		w.Append(line(2), 1)
		w.Append(line(3), 1)
	})
	if got := w.Lost(); got != (Lost{Lines: 2, Bytes: int64(2 * len(line(2)))}) {
		t.Errorf("lost %+v", got)
	}
	w.Append(line(4), 1)
	w.Close()
	want := []string{"1", fmt.Sprintf("2 lines, %d bytes lost: write log: file too large", 2*len(line(2))), "4"}
	if diff := cmp.Diff(want, readAll(t, dir, Options{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// limitFileSize stands in for a full disk: a write past the limit is cut short or
// fails, as one on a full disk does.
func limitFileSize(t *testing.T, limit uint64, f func()) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: limit, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_FSIZE, &before)
	f()
}

// Whatever records are written in whatever batches through whatever restarts of
// the writer: what is read is their end, whole, in order and within bounds.
func TestWriterLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "logfile")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		var written []string
		w := openSmall(t, dir)
		for i := range rapid.IntRange(0, 60).Draw(t, "batches") {
			var batch []byte
			lines := rapid.IntRange(1, 3).Draw(t, "lines")
			for range lines {
				batch = append(batch, line(len(written))...)
				written = append(written, fmt.Sprint(len(written)))
			}
			w.Append(batch, lines)
			if rapid.IntRange(0, 9).Draw(t, "restart") == 0 && i > 0 {
				w.Close()
				w = openSmall(t, dir)
			}
		}
		w.Close()
		checkEnd(t, dir, written)
	})
}

func openSmall(t *rapid.T, dir string) *Writer {
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWriter(root, 100, 3, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func checkEnd(t *rapid.T, dir string, written []string) {
	r, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got []string
	for {
		e, err := r.Next(context.Background())
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(e.Text))
	}
	if len(got) > len(written) || (len(got) == 0) != (len(written) == 0) {
		t.Fatalf("%d records of %d", len(got), len(written))
	}
	if diff := cmp.Diff(written[len(written)-len(got):], got); diff != "" && len(got) > 0 {
		t.Fatalf("(-want +got):\n%s", diff)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if have, err := segments(root); err != nil || len(have) > 3 {
		t.Fatalf("segments %v, %v", have, err)
	}
}

// FuzzReader reads a segment of any content: no panic, no endless loop, and what
// it gives is a record that writes the same again.
func FuzzReader(f *testing.F) {
	f.Add(line(1))
	f.Add([]byte("2026-11-24T05:41:43Z stdout F x\n\n\xff\n2026"))
	f.Add([]byte(strings.Repeat("x", 3*MaxRecord)))
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, segmentName(1)), content, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, tail := range []int{0, 1, 3} {
			got := readAll(t, dir, Options{Tail: tail})
			if tail > 0 && len(got) > tail {
				t.Fatalf("%d entries, asked for %d", len(got), tail)
			}
		}
	})
}

func names(t *testing.T, dir string) (found []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		found = append(found, e.Name())
	}
	return found
}
