package nvml_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/drivers/nvml"
)

func TestFramesComeThrough(t *testing.T) {
	var wire bytes.Buffer
	want := []nvml.Response{
		{ID: 1, Host: &nvml.Host{DriverVersion: "580.95.05", GPUs: 8}},
		{ID: 2, Problem: nvml.ProblemOf(fault.New(fault.Timeout, "read", "late").WithHint("wait"))},
	}
	for _, r := range want {
		if err := nvml.WriteFrame(&wire, r); err != nil {
			t.Fatal(err)
		}
	}
	for i := range want {
		var have nvml.Response
		if err := nvml.ReadFrame(&wire, &have); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want[i], have); diff != "" {
			t.Errorf("frame %d (-want +have):\n%s", i, diff)
		}
	}
	if err := nvml.ReadFrame(&wire, &nvml.Response{}); err != io.EOF {
		t.Errorf("at the end: have %v", err)
	}
}

func TestProblemKeepsTheFault(t *testing.T) {
	if nvml.ProblemOf(nil) != nil || (*nvml.Problem)(nil).Err() != nil {
		t.Error("no error became a problem")
	}
	err := nvml.ProblemOf(fault.New(fault.Unsupported, "initialise NVML", "no library").WithHint("install it")).Err()
	if fault.KindOf(err) != fault.Unsupported || fault.HintOf(err) != "install it" || !strings.Contains(err.Error(), "no library") {
		t.Errorf("have %v", err)
	}
}

func TestBadFramesAreRefused(t *testing.T) {
	for _, row := range []struct{ name, wire, want string }{
		{"too long", "\xff\xff\xff\xff", "are more than"},
		{"cut off", "\x00\x00\x00\x09{}", "unexpected EOF"},
		{"cut off in the head", "\x00\x00", "unexpected EOF"},
		{"no JSON", "\x00\x00\x00\x02{[", "decode frame"},
	} {
		t.Run(row.name, func(t *testing.T) {
			err := nvml.ReadFrame(strings.NewReader(row.wire), &nvml.Response{})
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("have %v, want %s", err, row.want)
			}
		})
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x02{}"))
	f.Add([]byte("\x00\x00\x00\x08{\"id\":1}\x00"))
	f.Fuzz(func(t *testing.T, wire []byte) {
		in := bytes.NewReader(wire)
		for {
			var r nvml.Response
			err := nvml.ReadFrame(in, &r)
			if err == nil {
				continue
			}
			if errors.Is(err, io.EOF) && in.Len() > 4 {
				t.Errorf("the end was found with %d bytes left", in.Len())
			}
			return
		}
	})
}
