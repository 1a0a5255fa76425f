package attack

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
)

// minCases is how many tries the suite makes at least: it never shrinks.
const minCases = 229

// TestAttacks tries the whole table from inside an instance that the room made,
// and finds every control in force afterwards.
func TestAttacks(t *testing.T) {
	// Numbers of the host's processes must not be those of the instance's own.
	must(t, os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte("20000"), 0))
	h := newHost(t)
	victim := lease(1, h.image(), 1)
	attacker := lease(2, h.image(), 0)
	h.start(victim)
	h.start(attacker)
	listener, err := net.Listen("unix", "@gpuhost-attack")
	must(t, err)
	defer listener.Close()

	shim := parent(t, h.pid(attacker))
	facts := []string{
		HostSocket + "=gpuhost-attack",
		fmt.Sprintf("%s=%d,%d,%d", HostPIDs, shim, h.pid(attacker), h.pid(victim)),
	}
	got := lines(h.exec(attacker, append(append([]string{"env"}, facts...), "/probe")...))
	t.Setenv(HostPIDs, strings.TrimPrefix(facts[1], HostPIDs+"="))
	want := append([]Case{{Name: "inherited", Want: "nothing"}}, Cases()...)
	if len(got) != len(want) {
		t.Fatalf("%d answers of %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	for i, c := range want {
		name, answer, _ := strings.Cut(got[i], "\t")
		switch {
		case name == c.Name && answer == c.Want:
		case name == c.Name && c.Absent(answer):
			t.Logf("%s: this machine cannot show it", name)
		default:
			t.Errorf("%s: %s, want %s: %s", name, answer, c.Name, c.Want)
		}
	}
	if len(want) < minCases {
		t.Errorf("%d cases, at least %d were tried before", len(want), minCases)
	}
	t.Logf("%d cases", len(want))
	h.audited(attacker)
	h.audited(victim)
}

func parent(t *testing.T, pid int) (parent int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	must(t, err)
	_, rest, _ := strings.Cut(string(text), ") ")
	_, err = fmt.Sscanf(rest, "%c %d", new(rune), &parent)
	must(t, err)
	return parent
}
