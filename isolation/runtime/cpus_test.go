package runtime

import "testing"

func TestCPUsIn(t *testing.T) {
	for list, want := range map[string]int{"0\n": 1, "0-1\n": 2, "0-63": 64, "0-3,8-11\n": 12, "0,2": 3, "": 0, "0-": 0, "many": 0} {
		if have, ok := cpusIn(list); ok != (want > 0) || ok && have != want {
			t.Errorf("%q: have %d, %v", list, have, ok)
		}
	}
	if n, err := possibleCPUs(); err != nil || n < 1 {
		t.Errorf("this machine: %d, %v", n, err)
	}
}
