package audit

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseStatus(t *testing.T) {
	got, err := parseStatus(fixture(t, "status"))
	if err != nil {
		t.Fatal(err)
	}
	want := Thread{
		PID: 4711, Name: `py\nSeccomp:\t0`, NoNewPrivs: "1", Seccomp: "2",
		Caps: map[string]uint64{"CapInh": 0, "CapPrm": 0x405fb, "CapEff": 0x405fb, "CapBnd": 0x405fb, "CapAmb": 0},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseStatusRefusesHalfATruth(t *testing.T) {
	whole := fixture(t, "status")
	for name, text := range map[string]string{
		"empty":         "",
		"a set missing": strings.Replace(whole, "CapBnd", "CapXxx", 1),
		"no process":    strings.Replace(whole, "Tgid:\t4711", "Tgid:\tx", 1),
		"a key twice":   whole + "Seccomp:\t2\n",
	} {
		if p, err := parseStatus(text); err == nil {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

func TestParseIDMap(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{"         0 1879048192      65536\n", "0 1879048192 65536"},
		{"0 0 1\n1 100 2\n", "0 0 1; 1 100 2"},
		{"", ""},
	} {
		got, err := parseIDMap(row.text)
		if err != nil || got != row.want {
			t.Errorf("parseIDMap(%q) = %q, %v", row.text, got, err)
		}
	}
	for _, text := range []string{"0 1\n", "0 -1 5\n", "0 4294967296 1\n", "a b c\n"} {
		if got, err := parseIDMap(text); err == nil {
			t.Errorf("parseIDMap(%q) = %q", text, got)
		}
	}
}

func TestParseMounts(t *testing.T) {
	mounts, err := parseMounts(strings.NewReader(fixture(t, "mountinfo")))
	if err != nil {
		t.Fatal(err)
	}
	want := Mount{Point: "/dev/nvidia0", Root: "/aaaaaaaa/nvidia0", Type: "tmpfs", Options: []string{"noexec", "nosuid", "relatime", "rw"}}
	for _, m := range mounts {
		if m.Point == want.Point {
			if diff := cmp.Diff(want, m); diff != "" {
				t.Error(diff)
			}
			return
		}
	}
	t.Errorf("no %s among %d mounts", want.Point, len(mounts))
}

func FuzzParseStatus(f *testing.F) {
	f.Add(fixture(f, "status"))
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parseStatus(text)
		if err == nil && len(p.Caps) != len(capSets()) {
			t.Errorf("passed with %d sets", len(p.Caps))
		}
	})
}

func FuzzParseIDMap(f *testing.F) {
	f.Add(fixture(f, "uid_map"))
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseIDMap(text)
		if err != nil {
			return
		}
		if again, err := parseIDMap(strings.ReplaceAll(got, "; ", "\n")); err != nil || again != got {
			t.Errorf("%q becomes %q, %v", got, again, err)
		}
	})
}

func FuzzParseMounts(f *testing.F) {
	f.Add(fixture(f, "mountinfo"))
	f.Fuzz(func(t *testing.T, text string) {
		mounts, err := parseMounts(strings.NewReader(text))
		if err != nil {
			return
		}
		want, facts := Want{}, Facts{Mounts: Fact[[]Mount]{Value: mounts}}
		_ = judgeMounts(want, facts)
		_ = judgeSockets(want, facts)
	})
}
