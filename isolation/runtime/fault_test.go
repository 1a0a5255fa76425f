package runtime

import (
	"errors"
	"testing"

	"github.com/gpuhost/gpuhost/agent/fault"
)

func TestACommandThatCannotRunIsTheWritersToMend(t *testing.T) {
	for text, want := range map[string]fault.Kind{
		`OCI runtime create failed: runc create failed: exec: "pyhton": executable file not found in $PATH: unknown`: fault.Invalid,
		`runc create failed: unable to start: exec: "/etc": is a directory`:                                          fault.Invalid,
		`exec: "/bin/tool": exec format error`:                                                                       fault.Invalid,
		`runc create failed: unable to apply cgroup configuration: no such file or directory`:                        fault.Internal,
		`failed to exec in container: failed to open stdout fifo: no such file or directory`:                         fault.Internal,
		`exec: something that nobody has seen`:                                                                       fault.Internal,
	} {
		if got := fault.KindOf(commandFault("start task", errors.New(text))); got != want {
			t.Errorf("%s\nis %s, want %s", text, got, want)
		}
	}
}
