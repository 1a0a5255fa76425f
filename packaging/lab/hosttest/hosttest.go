// Package hosttest runs a package's tests on real kernel parts without
// touching the machine: in mount, network and process namespaces of their own,
// where cgroup v2 is mounted at /sys/fs/cgroup whatever the machine uses.
//
//	func TestMain(m *testing.M) { hosttest.Main(m) }
//
//	func TestGuard(t *testing.T) {
//		hosttest.Need(t, "nft")
//		…
//	}
//
// The machine's one cgroup v2 hierarchy is the only thing shared with the
// outside: tests remove the cgroups they make; [NoLeaks] checks.
//
// With -short, or without root, the tests run in place and [Need] skips; where
// CI=true it fails instead, except under -short, which asks for the pure tier.
package hosttest

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

// Option changes what [Main] makes private.
type Option func(*options)

type options struct {
	hostNetwork bool
}

// HostNetwork keeps the machine's network namespace.
func HostNetwork() Option {
	return func(o *options) { o.hostNetwork = true }
}

// stageVariable tells a re-executed test binary which of the three processes
// it is: unset, the one that go test started; "init", the first process of the
// namespaces; "tests", the one that runs the tests.
const stageVariable = "GPUHOST_HOSTTEST_STAGE"

// Main is the body of a package's TestMain. It does not return.
func Main(m *testing.M, opts ...Option) {
	var o options
	for _, set := range opts {
		set(&o)
	}
	flag.Parse()
	os.Exit(run(m, o))
}

func run(m *testing.M, o options) int {
	switch stage := os.Getenv(stageVariable); {
	case stage == "init":
		return report(initStage())
	case stage == "tests" || testing.Short() || os.Getuid() != 0:
		return m.Run()
	default:
		return report(outerStage(o))
	}
}

// report prints what kept the tests from running at all.
func report(code int, err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, "hosttest:", err)
		return 1
	}
	return code
}

// inside says whether this process runs in the namespaces of [Main].
func inside() bool { return os.Getenv(stageVariable) == "tests" }
