package service

import (
	"strings"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/reconcile"
)

// Problems says in the API's words what is not as it should be now. Instances tell
// of theirs in their own status.
func Problems(found []reconcile.Problem) []api.Problem {
	out := make([]api.Problem, len(found))
	for i, p := range found {
		hint := fault.HintOf(p.Err)
		if hint == "" {
			hint = "gpuhost doctor convergence"
		}
		out[i] = api.Problem{Name: p.Name, Message: strings.ReplaceAll(p.Err.Error(), "\n", "; "), Hint: hint, Since: p.Since}
	}
	return out
}
