package agent

import (
	"errors"
	"testing"

	"github.com/gpuhost/gpuhost/agent/reconcile"
)

func TestWhatKeepsTheHostFromBeingReady(t *testing.T) {
	bad := reconcile.Problem{Name: "settings", Err: errors.New("unknown key"), Task: true}
	lane := reconcile.Problem{Name: "network acme/default", Err: errors.New("no memory")}
	for name, row := range map[string]struct {
		found []reconcile.Problem
		want  string
	}{
		"nothing is wrong":                        {nil, ""},
		"bad settings: the old ones are in force": {[]reconcile.Problem{bad}, ""},
		"rules that are not in force":             {[]reconcile.Problem{bad, lane}, "wait for network acme/default: no memory"},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if err := blocking(row.found); err != nil {
				got = err.Error()
			}
			if got != row.want {
				t.Errorf("%q, want %q", got, row.want)
			}
		})
	}
}
