package canary_test

import (
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gpuhost/gpuhost/isolation/warden/canary"
)

func TestParse(t *testing.T) {
	got, err := canary.Parse(strings.NewReader(`{"path":"/dev/nvidia0","major":195,"minor":0,"errno":1}` + "\n" +
		`{"path":"/dev/x","major":10,"minor":200,"errno":0}` + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []canary.Result{
		{Path: "/dev/nvidia0", Major: 195, Errno: syscall.EPERM},
		{Path: "/dev/x", Major: 10, Minor: 200},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !got[0].Denied() || got[1].Denied() {
		t.Error("only the first was denied")
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{"x", `{"path":"/"`, `{}`, "\n"} {
		if got, err := canary.Parse(strings.NewReader(text)); err == nil {
			t.Errorf("%q was read as %v", text, got)
		}
	}
}
