package gpu_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gpuhost/gpuhost/drivers/gpu"
)

func TestParseUUID(t *testing.T) {
	const good = "GPU-8f6c0d1e-0a1b-2c3d-4e5f-60718293a4b5"
	for _, row := range []struct{ text, want string }{
		{good, good},
		{strings.ToUpper(good), good},
		{"", ""},
		{"0", ""},
		{"GPU-", ""},
		{"MIG-8f6c0d1e-0a1b-2c3d-4e5f-60718293a4b5", ""},
		{good + "0", ""},
		{"GPU-8f6c0d1e/../b-2c3d-4e5f-60718293a4b5", ""},
		{good + "\n", ""},
	} {
		t.Run(row.text, func(t *testing.T) {
			have, err := gpu.ParseUUID(row.text)
			if string(have) != row.want || (err == nil) != (row.want != "") {
				t.Errorf("have %q, %v; want %q", have, err, row.want)
			}
		})
	}
}

func TestParsePCIAddress(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{"0000:1b:00.0", "0000:1b:00.0"},
		{"1B:00.0", "0000:1b:00.0"},
		{"00000000:1B:00.0", "0000:1b:00.0"},
		{"0009:01:00.0", "0009:01:00.0"},
		{"00010000:01:00.0", ""},
		{"0000:1b:20.0", ""},
		{"0000:1b:00.8", ""},
		{"0000:1b:00", ""},
		{"../0000:1b:00.0", ""},
		{"", ""},
	} {
		t.Run(row.text, func(t *testing.T) {
			have, err := gpu.ParsePCIAddress(row.text)
			if string(have) != row.want || (err == nil) != (row.want != "") {
				t.Errorf("have %q, %v; want %q", have, err, row.want)
			}
		})
	}
}

func TestParseMIGProfile(t *testing.T) {
	for _, row := range []struct {
		text string
		want string // in NVML's notation, or what the error says
	}{
		{"3g.40gb", "3g.40gb"},
		{"1G.5GB", "1g.5gb"},
		{"1c.3g.40gb", "1c.3g.40gb"},
		{"3c.3g.40gb", "3g.40gb"},
		{"1g.10gb+me", "1g.10gb+me"},
		{"1g.12gb+gfx+me.all", "1g.12gb+gfx+me.all"},
		{"1g.12gb-me", "1g.12gb-me"},
		{"8g.80gb", "at most 7 slices"},
		{"4c.3g.40gb", "more compute slices"},
		{"1g.10gb+magic", "no attribute"},
		{"0g.40gb", "is no MIG profile"},
		{"3g.40", "is no MIG profile"},
		{"", "is no MIG profile"},
	} {
		t.Run(row.text, func(t *testing.T) {
			p, err := gpu.ParseMIGProfile(row.text)
			switch {
			case err == nil && p.String() != row.want:
				t.Errorf("have %s, want %s", p, row.want)
			case err != nil && !strings.Contains(err.Error(), row.want):
				t.Errorf("have %v, want %s", err, row.want)
			}
		})
	}
}

func TestShippedXIDs(t *testing.T) {
	policy, err := gpu.ShippedXIDs()
	if err != nil {
		t.Fatal(err)
	}
	if policy.Len() != 172 {
		t.Errorf("have %d codes, want 172", policy.Len())
	}
	for code, want := range map[int]gpu.XIDAction{
		13: gpu.XIDRestartApp, 43: gpu.XIDIgnore, 48: gpu.XIDWorkflow,
		54: gpu.XIDInspect, 79: gpu.XIDReboot, 119: gpu.XIDResetGPU,
	} {
		if x, known := policy.Lookup(code); !known || x.Action != want {
			t.Errorf("%d: have %+v, want %s", code, x, want)
		}
	}
	unknown, known := policy.Lookup(9999)
	want := gpu.XID{Code: 9999, Name: "UNKNOWN", Action: gpu.XIDInspect}
	if diff := cmp.Diff(want, unknown); diff != "" || known {
		t.Errorf("an unknown code (-want +have):\n%s", diff)
	}
}

func TestParseXIDsSaysWhere(t *testing.T) {
	for _, row := range []struct{ name, text, want string }{
		{"no action", "79\tFELL_OFF", "line 1: want code, name and action"},
		{"no code", "# head\nx\tNAME\tignore", `line 2: "x" is no XID code`},
		{"no such action", "1\tNAME\texplode", `"explode" is no action`},
		{"twice", "1\tA\tignore\n1\tB\tignore", "line 2: code 1 is there twice"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := gpu.ParseXIDs(row.text)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("have %v, want %s", err, row.want)
			}
		})
	}
}

func FuzzParseMIGProfile(f *testing.F) {
	for _, seed := range []string{"3g.40gb", "1c.3g.40gb+me", "1g.12gb-me"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := gpu.ParseMIGProfile(text)
		if err != nil {
			return
		}
		again, err := gpu.ParseMIGProfile(p.String())
		if err != nil || again.String() != p.String() {
			t.Errorf("%q reads as %s, which reads as %s, %v", text, p, again, err)
		}
	})
}

func FuzzParsePCIAddress(f *testing.F) {
	f.Add("0000:1b:00.0")
	f.Add("00000000:1B:00.0")
	f.Fuzz(func(t *testing.T, text string) {
		a, err := gpu.ParsePCIAddress(text)
		if err != nil {
			return
		}
		if again, err := gpu.ParsePCIAddress(string(a)); err != nil || again != a || len(a) != 12 {
			t.Errorf("%q reads as %q, which reads as %q, %v", text, a, again, err)
		}
	})
}
