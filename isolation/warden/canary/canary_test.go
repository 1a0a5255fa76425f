package canary_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gpuhost/gpuhost/isolation/warden/canary"
)

func genNodes() *rapid.Generator[[]canary.Node] {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) canary.Node {
		return canary.Node{
			Path:  rapid.StringMatching(`/[^\n]*`).Draw(t, "path"),
			Major: rapid.Uint32().Draw(t, "major"), Minor: rapid.Uint32().Draw(t, "minor"),
		}
	}), 0, 5)
}

// What is written arrives, several visits one after the other.
func TestWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var pipe bytes.Buffer
		var sent []canary.Visit
		for range rapid.IntRange(0, 3).Draw(t, "visits") {
			v := canary.Visit{
				Cgroup: rapid.StringMatching(`/[^\n]*`).Draw(t, "cgroup"),
				Tries:  canary.Tries{Root: genNodes().Draw(t, "root"), Tenant: genNodes().Draw(t, "tenant"), UID: rapid.Int().Draw(t, "uid")},
			}
			if err := canary.WriteVisit(&pipe, v); err != nil {
				t.Fatal(err)
			}
			sent = append(sent, v)
		}
		received := bufio.NewReader(&pipe)
		for _, v := range sent {
			got, err := canary.ReadVisit(received)
			if diff := cmp.Diff(v, got, cmp.Transformer("empty", func(n []canary.Node) []canary.Node { return append([]canary.Node{}, n...) })); err != nil || diff != "" {
				t.Fatalf("%v (-want +got):\n%s", err, diff)
			}
		}
		if _, err := canary.ReadVisit(received); err != io.EOF {
			t.Fatalf("after the last: %v", err)
		}
	})
}

func TestAnswer(t *testing.T) {
	tries := canary.Tries{
		Root:   []canary.Node{{Path: "/n/nvidia0", Major: 195}, {Path: "/n/tun", Major: 10, Minor: 200}},
		Tenant: []canary.Node{{Path: "/n/b/nvidia1", Major: 195, Minor: 1}},
	}
	var pipe bytes.Buffer
	if err := canary.WriteAnswer(&pipe, []syscall.Errno{syscall.EPERM, 0, syscall.EACCES}, nil); err != nil {
		t.Fatal(err)
	}
	got, err := canary.ReadAnswer(bufio.NewReader(&pipe), tries)
	if err != nil {
		t.Fatal(err)
	}
	want := canary.Answer{
		Root:   []canary.Result{{Path: "/n/nvidia0", Major: 195, Errno: syscall.EPERM}, {Path: "/n/tun", Major: 10, Minor: 200}},
		Tenant: []canary.Result{{Path: "/n/b/nvidia1", Major: 195, Minor: 1, Errno: syscall.EACCES}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !got.Root[0].Denied() || got.Root[1].Denied() || got.Tenant[0].Denied() {
		t.Error("only the first was denied")
	}
}

// Whatever is not one errno for each try is no answer.
func TestAnswerRefuses(t *testing.T) {
	tries := canary.Tries{Root: []canary.Node{{Path: "/a"}}, Tenant: []canary.Node{{Path: "/b"}}}
	for _, text := range []string{"", "tried 1 1", "tried 1\n", "tried 1 1 1\n", "tried 1 x\n", "tried 1 4096\n", "tried 1 -1\n", "1 1\n", "\n"} {
		if got, err := canary.ReadAnswer(bufio.NewReader(strings.NewReader(text)), tries); err == nil || errors.As(err, new(canary.Failed)) {
			t.Errorf("%q was read as %v, %v", text, got, err)
		}
	}
}

func TestFailureIsTold(t *testing.T) {
	var pipe bytes.Buffer
	if err := canary.WriteAnswer(&pipe, []syscall.Errno{0}, errors.New("no\ncgroup")); err != nil {
		t.Fatal(err)
	}
	_, err := canary.ReadAnswer(bufio.NewReader(&pipe), canary.Tries{Root: []canary.Node{{Path: "/a"}}})
	if got := canary.Failed(""); !errors.As(err, &got) || got != "no; cgroup" {
		t.Errorf("ReadAnswer = %v", err)
	}
}

func TestVisitRefuses(t *testing.T) {
	for _, text := range []string{"cgroup /x", "root 1 2 /x\n", "root x 2 /x\n\n", "root 1 4294967296 /x\n\n", "uid x\n\n", "else\n\n"} {
		if got, err := canary.ReadVisit(bufio.NewReader(strings.NewReader(text))); err == nil || err == io.EOF {
			t.Errorf("%q was read as %v, %v", text, got, err)
		}
	}
	odd := canary.Visit{Tries: canary.Tries{Root: []canary.Node{{Path: "/a\nuid 0"}}}}
	if err := canary.WriteVisit(io.Discard, odd); err == nil {
		t.Error("a path with a line of its own was sent")
	}
}
