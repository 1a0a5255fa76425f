package cli

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// asks says whether there is somebody to answer a question.
func (a *app) asks() bool { return !a.yes && isTerminal(a.In) && isTerminal(a.Err) }

// confirm asks before something disturbs a tenant. Without a terminal nobody
// can answer, so the flag is needed.
func (a *app) confirm(ctx context.Context, what, consequence string) error {
	if a.yes {
		return nil
	}
	if !a.asks() {
		return fault.New(fault.Invalid, what, "%s, and nobody can be asked", consequence).WithHint("add --yes")
	}
	fmt.Fprintf(a.Err, "%s: %s. Go on? [y/N] ", printable(what), printable(consequence))
	answer, err := patiently(ctx, func() (string, error) { return bufio.NewReader(a.In).ReadString('\n') })
	if ctx.Err() != nil {
		fmt.Fprintln(a.Err)
		return ctx.Err()
	}
	if err == nil && strings.EqualFold(strings.TrimSpace(answer), "y") {
		return nil
	}
	a.say("nothing was changed")
	return exitCode(fault.ExitFailed)
}

// patiently waits for a read of standard input until ctx ends. A read that is under
// way cannot be called off: it ends with its input or with the process.
func patiently[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := read()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}
