package service

import (
	"testing"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// Whoever gives a name instead of a number is told so; there is no file of accounts
// to look it up in.
func TestTheUserOfACommandIsANumber(t *testing.T) {
	for text, valid := range map[string]bool{"": true, "1000": true, "1000:1001": true, "bob": false, "1000:staff": false, "99999999": false} {
		if _, err := execUser(text); (err == nil) != valid || err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestACommandInWhatDoesNotRunSaysHowToStartIt(t *testing.T) {
	ref := spec.Ref{Kind: spec.KindInstance, Tenant: "acme", Name: "a"}
	err := execFault(ref, fault.New(fault.Conflict, "exec in xvhbsta3", "the instance is not running"))
	if err.Error() != "exec in instance acme/a: it does not run" || fault.HintOf(err) != "gpuhost start acme/a" {
		t.Errorf("%v, hint %q", err, fault.HintOf(err))
	}
}
