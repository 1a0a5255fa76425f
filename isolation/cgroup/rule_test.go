package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/gpuhost/gpuhost/isolation"
)

func grant(minors ...uint32) []Rule {
	lease := isolation.Lease{}
	for _, m := range minors {
		lease.GPUs = append(lease.GPUs, isolation.Device{Minor: m})
	}
	return Rules(isolation.Grant(lease, 510))
}

func assemble(t testing.TB, rules []Rule) asm.Instructions {
	t.Helper()
	insns, err := Assemble(rules)
	if err != nil {
		t.Fatal(err)
	}
	return insns
}

func TestAssembledProgramText(t *testing.T) {
	for name, rules := range map[string][]Rule{
		"fence":    nil,
		"two-gpus": grant(0, 3),
	} {
		t.Run(name, func(t *testing.T) {
			got := fmt.Sprintf("%v", assemble(t, rules))
			file := filepath.Join("testdata", name+".asm")
			if os.Getenv("UPDATE_GOLDEN") != "" {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("program of %s (-want +got):\n%s", name, diff)
			}
		})
	}
}

func TestProgramDecides(t *testing.T) {
	insns := assemble(t, grant(0))
	const char, block = unix.BPF_DEVCG_DEV_CHAR, unix.BPF_DEVCG_DEV_BLOCK
	const r, w, m = unix.BPF_DEVCG_ACC_READ, unix.BPF_DEVCG_ACC_WRITE, unix.BPF_DEVCG_ACC_MKNOD
	for _, row := range []struct {
		name   string
		access Access
		want   bool
	}{
		{"own GPU", Access{char, r | w, 195, 0}, true},
		{"control node", Access{char, r | w, 195, 255}, true},
		{"unified memory", Access{char, r | w, 510, 0}, true},
		{"null", Access{char, w, 1, 3}, true},
		{"any pty", Access{char, r, 136, 1234}, true},
		{"another GPU", Access{char, r, 195, 1}, false},
		{"modeset", Access{char, r, 195, 254}, false},
		{"unified memory tools", Access{char, r, 510, 1}, false},
		{"mknod of own GPU", Access{char, m, 195, 0}, false},
		{"mknod and read of null", Access{char, r | m, 1, 3}, false},
		{"physical memory", Access{char, r, 1, 1}, false},
		{"tun, which runc lets through", Access{char, r | w, 10, 200}, false},
		{"block device of a granted number", Access{block, r, 195, 0}, false},
		{"a disk", Access{block, r, 8, 0}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := Decide(insns, row.access)
			if err != nil {
				t.Fatal(err)
			}
			if got != row.want {
				t.Errorf("%v: allowed = %v, want %v", row.access, got, row.want)
			}
		})
	}
}

func TestAssembleRefusesNumbersThatCannotExist(t *testing.T) {
	for _, r := range []Rule{{Major: 4096}, {Major: 1, Minor: 1 << 20}} {
		if _, err := Assemble([]Rule{r}); err == nil {
			t.Errorf("Assemble(%+v) passed", r)
		}
	}
}

// drawRules draws few distinct numbers, so that rules meet accesses.
func drawRules(t *rapid.T) []Rule {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Rule {
		return Rule{
			Major:    rapid.OneOf(rapid.Uint32Range(0, 4), rapid.Uint32Range(0, maxMajor)).Draw(t, "major"),
			Minor:    rapid.OneOf(rapid.Uint32Range(0, 4), rapid.Uint32Range(0, maxMinor)).Draw(t, "minor"),
			AnyMinor: rapid.IntRange(0, 5).Draw(t, "any") == 0,
		}
	}), 0, 20).Draw(t, "rules")
}

func drawAccess(t *rapid.T, rules []Rule) Access {
	a := Access{
		Type:  rapid.Uint16Range(1, 2).Draw(t, "type"),
		Mode:  rapid.Uint16Range(0, 7).Draw(t, "mode"),
		Major: rapid.Uint32Range(0, maxMajor).Draw(t, "access major"),
		Minor: rapid.Uint32Range(0, maxMinor).Draw(t, "access minor"),
	}
	if len(rules) > 0 && rapid.Bool().Draw(t, "near a rule") {
		r := rapid.SampledFrom(rules).Draw(t, "rule")
		a.Major, a.Minor = r.Major, r.Minor+rapid.Uint32Range(0, 1).Draw(t, "off")
	}
	return a
}

func TestProgramMeansItsRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := drawRules(t)
		insns, err := Assemble(rules)
		if err != nil {
			t.Fatal(err)
		}
		a := drawAccess(t, rules)
		got, err := Decide(insns, a)
		if err != nil {
			t.Fatal(err)
		}
		if want := Allows(rules, a); got != want {
			t.Fatalf("%v under %+v: program says %v, rules say %v", a, rules, got, want)
		}
		excess, err := Excess(insns, func(a Access) bool { return Allows(rules, a) })
		if err != nil || len(excess) > 0 {
			t.Fatalf("Excess of %+v = %v, %v", rules, excess, err)
		}
	})
}

func TestExcessFindsEveryWidening(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := drawRules(t)
		extra := Rule{Major: rapid.Uint32Range(0, maxMajor).Draw(t, "major"), Minor: rapid.Uint32Range(0, maxMinor).Draw(t, "minor")}
		if Allows(rules, Access{unix.BPF_DEVCG_DEV_CHAR, unix.BPF_DEVCG_ACC_READ, extra.Major, extra.Minor}) {
			t.Skip("drawn again: this rule widens nothing")
		}
		insns, err := Assemble(append(rules, extra))
		if err != nil {
			t.Fatal(err)
		}
		excess, err := Excess(insns, func(a Access) bool { return Allows(rules, a) })
		if err != nil || len(excess) != 1 || excess[0].Major != extra.Major || excess[0].Minor != extra.Minor {
			t.Fatalf("Excess = %v, %v, want device %d:%d", excess, err, extra.Major, extra.Minor)
		}
	})
}

func TestTagDependsOnTheGrantNotOnItsOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := drawRules(t)
		shuffled := rapid.Permutation(append(rules, rules...)).Draw(t, "shuffled")
		one, err := Assemble(rules)
		if err != nil {
			t.Fatal(err)
		}
		two, err := Assemble(shuffled)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(fmt.Sprint(one), fmt.Sprint(two)); diff != "" {
			t.Fatalf("same grant, two programs:\n%s", diff)
		}
	})
}

func TestParseStatTrustsOnlyTheLastBracket(t *testing.T) {
	for _, row := range []struct{ text, command, state string }{
		{"12 (python) D 1 12", "python", "D"},
		{"12 (a) R (b) S 1 12", "a) R (b", "S"},
		{"12 (\xff) Z 1", "?", "Z"},
		{"", "?", "?"},
		{")(", "?", "?"},
	} {
		command, state := parseStat(row.text)
		if command != row.command || state != row.state {
			t.Errorf("parseStat(%q) = %q, %q, want %q, %q", row.text, command, state, row.command, row.state)
		}
	}
}

func TestParsePidsRefusesTheUnseen(t *testing.T) {
	if pids, err := parsePids("12\n0\n"); err == nil {
		t.Errorf("parsePids = %v, want an error for pid 0", pids)
	}
	pids, err := parsePids("12\n7\n")
	if diff := cmp.Diff([]int{12, 7}, pids); err != nil || diff != "" {
		t.Errorf("parsePids: %v %s", err, diff)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("populated 1\nfrozen 0\n")
	f.Add("1 (x) R 2")
	f.Fuzz(func(t *testing.T, text string) {
		_, _ = parsePids(text)
		_, state := parseStat(text)
		if strings.ContainsRune(state, ' ') {
			t.Errorf("state %q", state)
		}
		_ = parseEvents(text)
	})
}
