package cli

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// confirm asks before something disturbs a tenant. Without a terminal nobody
// can answer, so the flag is needed.
func (a *app) confirm(what, consequence string) error {
	if a.yes {
		return nil
	}
	if !isTerminal(a.In) || !isTerminal(a.Err) {
		return fault.New(fault.Invalid, what, "%s, and nobody can be asked", consequence).WithHint("add --yes")
	}
	fmt.Fprintf(a.Err, "%s: %s. Go on? [y/N] ", printable(what), printable(consequence))
	answer, err := bufio.NewReader(a.In).ReadString('\n')
	if err == nil && strings.EqualFold(strings.TrimSpace(answer), "y") {
		return nil
	}
	a.say("nothing was changed")
	return exitCode(fault.ExitFailed)
}
