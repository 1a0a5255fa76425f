package cli_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/api/apitest"
	"github.com/gpuhost/gpuhost/agent/cli"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

var update = flag.Bool("update", false, "rewrite the expected output in the scripts")

func TestMain(m *testing.M) {
	testscript.Main(leakless{m}, map[string]func(){"gpuhost": func() {
		stdio := cli.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
		os.Exit(cli.Main(os.Args[1:], stdio, cli.Hooks{Version: "1.2.3"}))
	}})
}

// leakless fails a run that left goroutines behind.
type leakless struct{ *testing.M }

func (l leakless) Run() int {
	code := l.M.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// TestScripts runs the binary against an API with a backend in memory. Besides
// testscript's own commands there are
//
//	code N gpuhost ARGS…            run it and want this exit code
//	backend fail METHOD KIND WHY    let a method of the backend fail
//	backend heal METHOD
//	backend hold | release          keep new changes running | end them
//	backend seed TENANT NAME        put a running instance there
//	backend stale TENANT NAME       put one there that is newer than what was seen of it
//	backend disrupt                 let plan and verify find that acme/train-1 must be replaced
//	backend followed events | ID    wait until somebody follows the events or the change
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: *update,
		Setup:         setup,
		Cmds:          map[string]func(*testscript.TestScript, bool, []string){"code": code, "backend": control},
	})
}

type backendKey struct{}

func setup(env *testscript.Env) error {
	backend := host()
	address, stop, err := apitest.Serve(backend, api.Options{
		Peers:   api.Peers{OperatorGroups: []uint32{uint32(os.Getegid())}},
		Version: api.Version{Version: "1.2.2", Commit: "abc", Go: "go1"},
	})
	if err != nil {
		return err
	}
	env.Values[backendKey{}] = backend
	env.Setenv("GPUHOST_HOST", address)
	env.Setenv("NO_COLOR", "")
	env.Defer(func() {
		if err := stop(); err != nil {
			env.T().Log(err)
		}
	})
	return nil
}

func code(ts *testscript.TestScript, negated bool, args []string) {
	if negated || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d\nstdout: %s\nstderr: %s", got, want, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

func control(ts *testscript.TestScript, _ bool, args []string) {
	backend := ts.Value(backendKey{}).(*apitest.Backend)
	switch args[0] {
	case "fail":
		backend.Fail(args[1], fault.New(fault.Kind(args[2]), "work", "%s", args[3]).WithHint("mend it"))
	case "heal":
		backend.Fail(args[1], nil)
	case "hold":
		backend.Hold(true)
	case "release":
		backend.Hold(false)
	case "followed":
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		ts.Check(backend.Followed(ctx, args[1]))
	case "disrupt":
		backend.Find(disruption())
	case "stale":
		o := running(args[1], args[2])
		o.Metadata.Generation++
		backend.Put(o)
	case "seed":
		backend.Put(running(args[1], args[2]))
	default:
		ts.Fatalf("backend %s?", args[0])
	}
}

func running(tenant, name string) *spec.Object {
	return &spec.Object{
		APIVersion: spec.APIVersion, Kind: spec.KindInstance,
		Metadata: spec.Metadata{Tenant: tenant, Name: name, UID: "a1b2c3d4", Generation: 2, Source: spec.SourceAPI,
			CreatedAt: time.Now().Add(-73 * time.Hour)},
		Spec: &spec.InstanceSpec{Image: "debian:12", GPUs: spec.GPURequest{Count: 2},
			Publish: []spec.Publish{{HostPort: 2222, Port: 22, Protocol: "tcp"}}},
		Status: &spec.Status{ObservedGeneration: 2, Phase: spec.PhaseRunning,
			Conditions: []spec.Condition{{Type: "Ready", Status: true, Reason: "Started", ObservedGeneration: 2, Since: apitest.Now()}},
			Instance:   &spec.InstanceStatus{Address: "10.0.1.2", Pid: 4242, Restarts: 1, GPUs: []string{"GPU-a", "GPU-b"}, StartedAt: apitest.Now()}},
	}
}

// disruption is a plan that replaces a running instance.
func disruption() ([]api.PlannedObject, []api.Deviation) {
	ref := running("acme", "train-1").Ref()
	stop := plan.NewStep(plan.Isolation, "stop", "a1b2c3d4", "image differs: debian:12 runs, debian:13 is wanted", nil)
	stop.Title, stop.Risk = ref.String(), plan.RiskDisrupts
	create := plan.NewStep(plan.Isolation, "create", "a1b2c3d4", "it is stopped, running is wanted", nil, stop.ID)
	create.Title = ref.String()
	diffs := []api.Diff{{Path: "spec.image", From: "debian:12", To: "debian:13"}, {Path: "spec.env.A", To: "b"}, {Path: "spec.user", From: "1000"}}
	return []api.PlannedObject{{Object: ref, Action: api.ActionChanged, Diffs: diffs, Plan: plan.Of(stop, create)}},
		[]api.Deviation{{Object: ref, What: "spec.image", Want: "debian:13", Found: "debian:12"}}
}

// host is a machine with two GPUs, of which one instance of acme holds one.
func host() *apitest.Backend {
	b := apitest.New()
	used := 12.0
	b.Devices = []api.GPU{
		{Device: gpu.Device{UUID: "GPU-a", Index: 0, PCI: "0000:1b:00.0", Model: "NVIDIA H100 80GB HBM3", MemoryBytes: 80 << 30},
			State: "Assigned", Tenant: "acme", Instance: "train-1", Since: apitest.Now(), Sample: &gpu.Sample{UUID: "GPU-a", UtilizationPercent: &used}},
		{Device: gpu.Device{UUID: "GPU-b", Index: 1, PCI: "0000:1c:00.0", Model: "NVIDIA H100 80GB HBM3", MemoryBytes: 80 << 30, NUMANode: 1}, State: "Free"},
	}
	b.Wires = []gpu.Link{{A: "GPU-a", B: "GPU-b", Kind: gpu.LinkNVLink, Lanes: 18}}
	b.Machine = api.HostStatus{Hostname: "h1", HostID: "main", Version: "1.2.2", StartedAt: time.Now().Add(-73 * time.Hour), Ready: true, Converged: true,
		Kernel: "6.1.0", Sim: "dgx-h100", Capacity: api.Capacity{GPUs: 2, GPUsFree: 1, CPUs: 16000, Memory: 64 << 30},
		Instances: api.PhaseCounts{spec.PhaseRunning: 1}, Parts: []api.PartStatus{{Name: "containerd", Ready: true}}}
	b.Reports = []api.AuditReport{{Object: running("acme", "train-1").Ref(), At: apitest.Now(), Pass: true,
		Controls: []spec.Control{{ID: "I1", Name: "user namespace", Expected: "100000+65536", Found: "100000+65536", Pass: true}}}}
	b.Checks = []api.CheckResult{{Name: "kernel", State: api.CheckPass, Message: "6.1.0"},
		{Name: "cgroup", State: api.CheckFail, Message: "controller cpu is missing", Hint: "boot with systemd.unified_cgroup_hierarchy=1"}}
	b.Settings = []api.Setting{{Key: "metrics.listen", Value: "127.0.0.1:9877", Origin: "default"}}
	b.Waiting = []string{"metrics.listen"}
	b.Planned = []api.PlannedObject{{Object: running("acme", "train-1").Ref(), Action: api.ActionUnchanged}}
	b.Log = "one\ntwo\n"
	b.AddImage(api.Image{Tenant: "acme", Name: "debian:12", Digest: "sha256:0123456789abcdef0123", Bytes: 3 << 20, UsedBy: []string{"train-1"}})
	b.AddImage(api.Image{Tenant: "acme", Name: "old:1", Digest: "sha256:1123456789abcdef0123", Bytes: 1 << 20})
	b.Put(running("acme", "train-1"))
	return b
}
