package tasklog

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gpuhost/gpuhost/isolation/warden/logfile"
)

func split(s *splitter, data []byte) (entries []logfile.Entry, lines int) {
	for len(data) > 0 {
		var n int
		dst := make([]byte, 0, batchSize)
		dst, n, data = s.feed(dst, time.Unix(0, 0), data)
		lines += n
		entries = append(entries, parse(dst)...)
	}
	return entries, lines
}

func parse(records []byte) (entries []logfile.Entry) {
	for record := range bytes.Lines(records) {
		e, ok := logfile.Parse(bytes.TrimSuffix(record, []byte("\n")))
		if !ok {
			panic("no record: " + string(record))
		}
		entries = append(entries, e)
	}
	return entries
}

func TestSplit(t *testing.T) {
	long := strings.Repeat("x", logfile.MaxText)
	tests := []struct {
		name   string
		pieces []string
		want   []string
	}{
		{"lines", []string{"a\nb\n"}, []string{"F a", "F b"}},
		{"empty line", []string{"\n\n"}, []string{"F ", "F "}},
		{"pieces", []string{"a", "b", "\nc", "\n"}, []string{"F ab", "F c"}},
		{"no end", []string{"a\nb"}, []string{"F a", "F b"}},
		{"nothing", nil, nil},
		{"exactly a part", []string{long + "\n"}, []string{"F " + long}},
		{"exactly a part, end later", []string{long, "\n"}, []string{"F " + long}},
		{"a part and a byte", []string{long + "y\n"}, []string{"P " + long, "F y"}},
		{"three parts in pieces", []string{long[:9], long, long, long[9:] + "\n"}, []string{"P " + long, "P " + long, "F " + long}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &splitter{stream: logfile.Stdout}
			var got []string
			for _, piece := range tt.pieces {
				entries, _ := split(s, []byte(piece))
				got = append(got, short(entries)...)
			}
			end, _ := s.end(make([]byte, 0, batchSize), time.Unix(0, 0))
			got = append(got, short(parse(end))...)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func short(entries []logfile.Entry) (texts []string) {
	for _, e := range entries {
		mark := "F "
		if e.Partial {
			mark = "P "
		}
		texts = append(texts, mark+string(e.Text))
	}
	return texts
}

// Any bytes in any pieces: the records put together are the bytes, no record is
// longer than allowed, and the count of lines is right.
func TestSplitterLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &splitter{stream: logfile.Stderr}
		var in, out []byte
		for range rapid.IntRange(0, 8).Draw(t, "pieces") {
			piece := bytes.Repeat(rapid.SliceOfN(rapid.SampledFrom([]byte("ab\n\x00")), 1, 6).Draw(t, "piece"),
				rapid.SampledFrom([]int{1, 2, 5000, 9000}).Draw(t, "times"))
			in = append(in, piece...)
			entries, lines := split(s, piece)
			if lines != len(entries) {
				t.Fatalf("%d lines counted, %d made", lines, len(entries))
			}
			out = join(t, out, entries)
		}
		end, _ := s.end(make([]byte, 0, batchSize), time.Unix(0, 0))
		out = join(t, out, parse(end))
		if len(in) > 0 && in[len(in)-1] != '\n' {
			in = append(in, '\n') // the last line is closed at the end
		}
		if !bytes.Equal(in, out) {
			t.Fatalf("%d bytes became %d", len(in), len(out))
		}
	})
}

func join(t *rapid.T, out []byte, entries []logfile.Entry) []byte {
	for _, e := range entries {
		if len(e.Text) > logfile.MaxText {
			t.Fatalf("record of %d bytes", len(e.Text))
		}
		out = append(out, e.Text...)
		if !e.Partial {
			out = append(out, '\n')
		}
	}
	return out
}
