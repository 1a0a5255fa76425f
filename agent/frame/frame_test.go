package frame_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gpuhost/gpuhost/agent/frame"
)

func TestTypedFramesComeBack(t *testing.T) {
	var wire bytes.Buffer
	w := frame.NewWriter(&wire)
	resize := frame.Resize{Cols: 132, Rows: 43}
	exit := frame.Exit{Code: -7, Unknown: true}
	failure := frame.Error{Code: "not_found", What: "exec in acme/train-1", Why: "no such program", Hint: "gpuhost logs"}
	for _, err := range []error{w.Resize(resize), w.Exit(exit), w.Fail(failure), w.CloseStdin()} {
		if err != nil {
			t.Fatal(err)
		}
	}

	r := frame.NewReader(&wire)
	if got, err := next(t, r).Resize(); err != nil || got != resize {
		t.Errorf("resize: %+v, %v", got, err)
	}
	if got, err := next(t, r).Exit(); err != nil || got != exit {
		t.Errorf("exit: %+v, %v", got, err)
	}
	if got, err := next(t, r).Failure(); err != nil || got != failure {
		t.Errorf("error: %+v, %v", got, err)
	}
	if f := next(t, r); f.Type != frame.CloseStdin || len(f.Payload) != 0 {
		t.Errorf("close-stdin: %+v", f)
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("end: %v, want EOF", err)
	}
}

func TestWireFormat(t *testing.T) {
	var wire bytes.Buffer
	w := frame.NewWriter(&wire)
	if err := w.Data(frame.Stdout, []byte("hi")); err != nil {
		t.Fatal(err)
	}
	if err := w.Exit(frame.Exit{Code: 3}); err != nil {
		t.Fatal(err)
	}
	want := []byte{2, 0, 0, 0, 2, 'h', 'i', 5, 0, 0, 0, 5, 0, 0, 0, 3, 0}
	if diff := cmp.Diff(want, wire.Bytes()); diff != "" {
		t.Errorf("bytes on the wire (-want +got):\n%s", diff)
	}
}

func TestRefused(t *testing.T) {
	tests := []struct {
		name string
		wire string
		want error
	}{
		{"zeros", strings.Repeat("\x00", 5), frame.ErrType},
		{"unknown type", "\x08\x00\x00\x00\x00", frame.ErrType},
		{"too long", "\x01\x00\x01\x00\x01", frame.ErrTooLong},
		{"longest length", "\x01\xff\xff\xff\xff", frame.ErrTooLong},
		{"half a header", "\x01\x00", io.ErrUnexpectedEOF},
		{"no payload", "\x01\x00\x00\x00\x02", io.ErrUnexpectedEOF},
		{"half a payload", "\x01\x00\x00\x00\x02x", io.ErrUnexpectedEOF},
		{"nothing", "", io.EOF},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := frame.NewReader(strings.NewReader(tt.wire)).Next(); err != tt.want {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	if err := frame.NewWriter(io.Discard).Frame(frame.Frame{Type: frame.Stdin, Payload: make([]byte, frame.MaxPayload+1)}); err != frame.ErrTooLong {
		t.Errorf("write of a long frame: %v", err)
	}
}

func TestWriterStaysFailed(t *testing.T) {
	broken := errors.New("broken")
	w := frame.NewWriter(failing{broken})
	for range 2 {
		if err := w.Data(frame.Stdin, []byte("x")); err != broken {
			t.Errorf("got %v, want %v", err, broken)
		}
	}
}

func TestLongErrorIsCut(t *testing.T) {
	var wire bytes.Buffer
	long := strings.Repeat("y", 1<<20)
	if err := frame.NewWriter(&wire).Fail(frame.Error{Code: long, What: long, Why: long, Hint: long}); err != nil {
		t.Fatal(err)
	}
	got, err := next(t, frame.NewReader(&wire)).Failure()
	if err != nil || len(got.Why) != 8<<10 {
		t.Errorf("why has %d bytes, %v", len(got.Why), err)
	}
}

// Whatever is written in whatever pieces comes back the same through a stream
// that returns one byte at a time.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		types := rapid.SampledFrom([]frame.Type{frame.Stdin, frame.Stdout, frame.Stderr})
		var wire bytes.Buffer
		want := map[frame.Type][]byte{}
		w := frame.NewWriter(&wire)
		for range rapid.IntRange(0, 20).Draw(t, "frames") {
			kind := types.Draw(t, "type")
			data := bytes.Repeat(rapid.SliceOfN(rapid.Byte(), 0, 8).Draw(t, "data"), rapid.SampledFrom([]int{1, 3, 20_000}).Draw(t, "times"))
			if err := w.Data(kind, data); err != nil {
				t.Fatal(err)
			}
			want[kind] = append(want[kind], data...)
		}
		got := map[frame.Type][]byte{}
		r := frame.NewReader(iotest.OneByteReader(&wire))
		for {
			f, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got[f.Type] = append(got[f.Type], f.Payload...)
		}
		for kind, data := range want {
			if !bytes.Equal(got[kind], data) {
				t.Fatalf("%v: %d bytes came back of %d", kind, len(got[kind]), len(data))
			}
		}
	})
}

// FuzzReader feeds a stream of a client to the reader and all decoders: no
// panic, bounded payloads, and what decodes encodes to the same bytes again.
func FuzzReader(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x02hi\x07\x00\x00\x00\x00"))
	f.Add([]byte("\x04\x00\x00\x00\x04\x00\x50\x00\x18"))
	f.Add([]byte("\x05\x00\x00\x00\x05\x00\x00\x00\x01\x00"))
	f.Add([]byte("\x06\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, wire []byte) {
		r := frame.NewReader(bytes.NewReader(wire))
		for {
			got, err := r.Next()
			if err != nil {
				return
			}
			if len(got.Payload) > frame.MaxPayload {
				t.Fatalf("payload of %d bytes", len(got.Payload))
			}
			checkReencodes(t, got)
		}
	})
}

func checkReencodes(t *testing.T, f frame.Frame) {
	var wire bytes.Buffer
	w := frame.NewWriter(&wire)
	if v, err := f.Resize(); err == nil {
		_ = w.Resize(v)
	} else if v, err := f.Exit(); err == nil {
		_ = w.Exit(v)
	} else if v, err := f.Failure(); err == nil && max(len(v.Code), len(v.What), len(v.Why), len(v.Hint)) <= 8<<10 {
		_ = w.Fail(v)
	} else {
		return
	}
	again, err := frame.NewReader(&wire).Next()
	if err != nil || !bytes.Equal(again.Payload, f.Payload) {
		t.Fatalf("%v: % x became % x, %v", f.Type, f.Payload, again.Payload, err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func next(t *testing.T, r *frame.Reader) frame.Frame {
	t.Helper()
	f, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	return f
}
